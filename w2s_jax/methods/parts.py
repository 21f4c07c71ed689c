"""METHODS, and what they build with: the parts of one experiment, from which a method wires its graph of phases.

A method never sees truth: `b.truth` is sealed, and only what is fitted as teacher or ceiling, and the evaluation, may
be given it. The engine checks every plan (engine/truth.py).
"""
import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from w2s_jax import config as configs
from w2s_jax import data, objectives
from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.graph import Phase, Rows, Source, Truth, source
from w2s_jax.labels.prompts import check_template
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods.inputs import Inputs, begun, default_loss, loss_of, mode_of, policy, related, shown, tuned
from w2s_jax.methods.robust import ROBUST, attacked
from w2s_jax.models.modes import Model
from w2s_jax.registry import Settings

SEES_TRUTH = ('teacher', 'ceiling')
WATCHED, MOST_WATCHED = 256, 10_000  # test rows that curves are measured on: by default, and of probes


class Halves(NamedTuple):
    """The pool's rows of a seed that the teacher learns, and those that are labelled for the student."""
    teacher: Rows
    student: Rows


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Labels of rows of the pool. need: the phase or source that has them.  kept: whether that phase also says which of
    the rows are left (a column `rows`).  before: those that transforms made them of.  made: these transforms in order,
    each by name with its phase."""
    need: Phase | Source
    rows: Rows
    kept: bool = False
    before: 'Labels | None' = None
    made: tuple[tuple[str, Phase], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A model that is evaluated. role: weak, ceiling, student ...; label: unique among those of a role.  need: its
    phase, or given labels.  row: what results.json says of it before it is measured.  judged: a phase with the
    probabilities `[n, 2]` that a judge prefers its texts to others."""
    role: str
    label: str
    seed: int | None
    need: Phase | Source
    row: dict = dataclasses.field(default_factory=dict)
    judged: Phase | None = None


class Parts(Inputs):
    """What a method is made of. config: the experiment's.  dataset: without truth.  models: by role.  truth: of the
    pool, sealed.  settings: of the method.  losses: the students', the baselines' first."""

    def __init__(self, config, dataset: Dataset, models: dict[str, Model], truth: dict[str, Truth]):
        super().__init__(config, dataset)
        self.models, self.sealed = models, truth
        self.truth, self.seeds = truth['pool'], tuple(config.seeds)
        self.targets: list[Target] = []
        self.settings = configs.chosen(config, 'method')[1]
        self.losses = list(dict.fromkeys([*config.method.baselines, config.student.loss.name]))
        self.labels_of: dict[int, Labels] = {}
        self.tuned: dict[int, Phase] = {}
        self.examples: dict[str, Phase] = {}
        cut = functools.partial(data.halves, dataset.pool.group, config.method.share)
        self.halves = {seed: Halves(*(Rows(seed, rows) for rows in cut(seed))) for seed in self.seeds}

    @property
    def teacher(self) -> Model:
        """The weak model. Raises ConfigError if the label source has none."""
        if 'teacher' not in self.models:
            raise ConfigError(f'labels.source: {self.config.labels.source!r} has no teacher, expected one that has')
        return self.models['teacher']

    @property
    def student(self) -> Model:
        """The strong model."""
        return self.models['student']

    def fit(self, role: str, model: Model, rows: Rows | None, targets, loss: str = '', *, label: str = '',
            start: Phase | None = None, head: str = 'kept', columns: dict | None = None, inputs: Phase | None = None,
            seed: int | None = None, stopping: bool | None = None, backbone: Phase | None = None,
            tests: dict[str, Phase] | None = None, epochs: int | None = None, rate: float | None = None,
            values: dict | None = None) -> Phase:
        """A model trained on rows of the pool.

        Args:
          role: teacher and ceiling may be given truth, any other (student, rung ...) may not.
          rows: of the pool, or of `inputs`; None: all of `inputs`.  targets: `b.truth`, labels (`b.label` ...), a
            phase with a column `labels`, or a source; None for an objective that reads none.  loss: name of a loss or
            objective; '': cross-entropy, and for a teacher the config's.  start: a phase whose
            parameters it goes on from; head: 'kept', or 'new': drawn again.
          columns: further columns of the batch, name -> labels or source `[n, ...]`; `weight` `[n]` weighs the rows in
            any loss.  inputs: a phase with texts or other inputs to learn from in place of the pool's; tests: such
            phases in place of test sets, by name.  stopping: whether the config's rule chooses the step; None: for
            teachers, ceilings and students, each on its own labels.  backbone: a phase that trained the whole model,
            whose backbone a probe reads.  epochs, rate: in place of the config's.  values: settings of the
            objective in place of its own.
        """
        part = 'teacher' if role == 'teacher' else 'student'
        seed = rows.seed if rows is not None else seed
        loss = loss or default_loss(self.config, role)
        needs, aim = self._targets(rows, targets), objectives.entry(loss, f'{part}.loss.name').options
        if aim.get('pairs'):
            model = policy(model, loss)
        if aim.get('shows'):
            model, untrained = self._showing(model, loss, needs, inputs)
            columns = {'features': untrained} | (columns or {})
        needs |= self.inputs_of(model, inputs, backbone or (start if model.scored else None), tests or {})
        needs |= {f'columns/{k}': v.need if isinstance(v, Labels) else v for k, v in (columns or {}).items()}
        section = self._fit_section(part, model, loss, seed, values or {})
        section['epochs'] = section['epochs'] if epochs is None else epochs
        section['hyper'] |= {} if rate is None else {'learning_rate': rate}
        if start is not None:
            needs['start'], section['start'] = start, head
        needed = self.config.train.keep == 'all' or self.config.attack.eps > 0 or role in ('teacher', 'rung', 'tuned')
        named = f'{role} {loss}' if role == 'student' else f'{role} {loss}'.removesuffix(' xent')
        if role in ('teacher', 'ceiling', 'student') if stopping is None else stopping:
            section, needs, peers = self._stopping(part, model, section, needs)
            if peers:
                needs = needs | self._peers(section, needs, f'half of {label or named}', role)
        return Phase('fit', section, needs, label or named, role, role in SEES_TRUTH, needed)

    def weak_labels(self, seed: int) -> tuple[Any, Labels]:
        """Who answers as the weak model, and its labels of the student's half: of the config's source, through the
        config's transforms."""
        entry, _ = configs.chosen_among(self.config, 'labels', 'source')[0]
        weak, labels = entry.fn(self, seed)
        return weak, self.transformed(labels)

    def transformed(self, labels: Labels) -> Labels:
        """Labels through the config's transforms."""
        for transform, settings in configs.chosen_among(self.config, 'labels', 'transforms'):
            labels = self.transform(transform, settings, labels)
        return labels

    def supervisor_labels(self, weak, rows: Rows) -> Labels:
        """The weak model's labels of any rows of the pool."""
        if isinstance(weak, Source):
            return self.column(rows)
        return self.label(weak, rows, noise=self.config.method.label_noise)

    def label(self, phase: Phase, rows: Rows, *, noise: float = 0.0, name: str = 'labels',
              inputs: Phase | None = None) -> Labels:
        """What a trained model answers on rows of the pool, as `method.labels` and temperature say. inputs: of the
        pool, in place of the task's."""
        method, model = self.config.method, self.model_of(phase)
        temperature = 1.0 if method.labels == 'hard' else method.temperature
        hyper = {'seed': rows.seed, 'temperature': temperature, 'noise': noise}
        section = {'model': model.identity, 'num_classes': self.dataset.num_classes, 'labels': method.labels,
                   'objective': phase.section['objective'], 'hyper': hyper}
        needs = self.read_by(model, inputs, tuned(phase)) | {'rows': rows.source, 'model': phase}
        return Labels(Phase('predict', section, needs, name, 'label'), rows)

    def column(self, rows: Rows) -> Labels:
        """The weak labels that came with the data."""
        if self.dataset.pool.given is None:
            raise ConfigError(f"labels.source: 'column', but task {self.dataset.name!r} brings no weak labels")
        if self.dataset.pool.given.ndim == 3:
            raise ConfigError(f"method.name: {self.config.method.name!r}, but task {self.dataset.name!r} brings weak "
                              f"labels of {self.dataset.pool.given.shape[1]} teachers, expected 'ensemble'")
        return Labels(source(self.dataset.pool.given[rows.index]), rows)

    def given_answers(self) -> Source:
        """The labels that came with the test set, as the weak model's answers."""
        if self.dataset.test.given is None:
            raise ConfigError(f"labels.source: 'column', but task {self.dataset.name!r} brings no weak labels")
        return source(self.dataset.test.given)

    def tune(self, model: Model, rows: Rows, *, epochs: int, rate: float | None = None, pack: int = 0) -> Phase:
        """The model's backbone trained to predict the inputs of rows of the pool, without any labels: what `fit` goes
        on from (`start`, `backbone`). pack: tokens of rows that texts are put together to; 0: one text a row. Raises
        ConfigError for a model that cannot predict its inputs."""
        if model.generative is None:
            raise ConfigError(f'method {self.config.method.name!r}: {model.name!r} does not predict its own inputs, '
                              'expected a causal language model, or one of chess')
        whole = model.generative()
        if pack and whole.tokenizer is None:
            raise ConfigError(f'method.pack: {pack}, but {model.name!r} reads no texts, expected 0')
        inputs = self.packed(whole, rows, pack) if pack else None
        aim = 'next_token' if whole.tokenizer else 'hidden_squares' if whole.vocab_size else 'denoising'
        return self.fit('tuned', whole, None if pack else rows, None, aim, inputs=inputs, seed=rows.seed,
                        epochs=epochs, rate=rate, label=f'{model.name} on its texts')

    def perplexity(self, seed: int, phase: Phase) -> None:
        """Says whose perplexity on the texts of the test set is to stand in the results."""
        self.tuned[seed] = phase

    def transform(self, entry, settings: Settings, labels: Labels) -> Labels:
        """Labels after a registered transform; it may drop rows."""
        section = {'transform': entry.identity(settings), 'num_classes': self.dataset.num_classes,
                   'hyper': {'seed': labels.rows.seed, **entry.traced(settings)}}
        needs = {'labels': labels.need} | ({} if labels.kept else {'rows': labels.rows.source})
        if of := entry.options.get('features'):
            needs['features'] = self.features(self.student) if of is True else self._asked(of, entry, settings)
        phase = Phase('transform', section, needs, f'labels, {entry.name}', 'label')
        return Labels(phase, labels.rows, True, labels.before or labels, (*labels.made, (entry.name, phase)))

    def _asked(self, name: str, entry, settings: Settings) -> Phase | Source:
        """Features of what a table makes of the pool's texts. Raises ConfigError for a task or model without texts."""
        table, frozen = TABLES[name], self.student.backbone() if self.student.backbone else self.student
        texts = self.dataset.pool.inputs.get('text')
        if texts is None or texts.shape[1] != 1 or frozen.featurize is None:
            raise ConfigError(f'labels.transforms: {entry.name!r} on task {self.dataset.name!r}, expected one text a '
                              'row and a language model as student')
        chosen = {k: settings.get(k, s.default) for k, s in table.settings.items()}
        if 'template' in chosen:
            check_template(f'labels.{entry.name}', Settings(chosen))
        asked = self.table(table, Settings(chosen), {'texts': self.raw['inputs']}, f'{name} of the pool')
        return self.prepared(frozen, asked.label, asked)

    def table(self, entry, settings: Settings, needs: dict, label: str, seed: int = 0) -> Phase:
        """A registered function of columns to columns (phases/tables.py): texts, numbers."""
        section = {'table': entry.identity(settings), 'hyper': {'seed': seed, **entry.traced(settings)}}
        return Phase('table', section, needs, label, 'table')

    def weak(self, need: Phase | Source, labels: Labels, name: str = '') -> None:
        """Says who is the weak model of a seed, and what its labels are. name: of several models together."""
        self.labels_of[labels.rows.seed] = labels
        name = name or (self.model_of(need).name if isinstance(need, Phase) else 'given')
        self._target(Target('weak', 'weak', labels.rows.seed, need, {'model': name}))

    def ceiling(self, phase: Phase) -> None:
        """Says who is the strong model trained on truth."""
        self._target(Target('ceiling', 'ceiling', phase.seed, phase, {'model': self.model_of(phase).name}))

    def students(self, phases: Iterable[Phase], *, method: str = '', label: str = '', oracle: bool = False,
                 supervisor: str = '', judged: Phase | None = None) -> None:
        """Says who is evaluated as a student. label: '': the name of the loss.  oracle: it was chosen by truth: it is
        marked, and never ranked.  supervisor: the label of the student whose answers it learned; '': the weak model's.
          judged: what a judge says of their texts (methods/written.py).
        """
        for phase in phases:
            aim = phase.section.get('objective', {'name': 'none'})
            row = {'method': method or self.config.method.name, 'label': label or aim['name'], 'loss': aim['name'],
                   'model': self.model_of(phase).name, **mode_of(phase), **shown(phase),
                   **({'oracle': True} if oracle else {}), **({'tuned': True} if begun(phase) else {}),
                   **({'supervisor': supervisor} if supervisor else {})}
            self._target(Target('student', row['label'], phase.seed, phase, row, judged))

    def _target(self, target: Target) -> None:
        key = (target.role, target.label, target.seed)
        if any((t.role, t.label, t.seed) == key for t in self.targets):
            raise ConfigError(f'method {self.config.method.name!r}: {target.role} {target.label!r} of seed '
                              f'{target.seed} is there twice, expected a label of its own for each')
        self.targets.append(target)

    def show(self, name: str, rows: Phase) -> None:
        """Says what stands for the rows of a test set where the report shows some of them."""
        self.examples[name] = rows

    def evaluation(self) -> Phase:
        """The phase that measures all targets."""
        report, student = self.config.report, self.student
        needs: dict[str, Any] = {f'truth/{k}': self.sealed[k][None] for k in self.dataset.tests}
        needs |= {f'test/{k}': self.examples.get(k, self.raw[k]) for k in self.dataset.tests}
        needs |= {f'group/{k}': source(v.group) for k, v in self.dataset.tests.items() if related(v.group)}
        needs |= {f'extra/{k}' if name == 'test' else f'extra/{name}/{k}': source(v)
                  for name, test in self.dataset.tests.items() for k, v in test.extras.items()}
        if student.answers:
            needs['zero_shot'] = self.zero_shot(student)
        needs |= {f'target/{i}': t.need for i, t in enumerate(self.targets)}
        needs |= {f'judged/{i}': t.judged for i, t in enumerate(self.targets) if t.judged is not None}
        if any(t.role == 'weak' and isinstance(t.need, Source) for t in self.targets):
            needs |= {f'given/{k}': source(v.given) for k, v in self.dataset.tests.items() if v.given is not None}
        for seed, phase in self.tuned.items():
            needs[f'tuned/{seed}'] = phase
        if self.tuned:
            needs['untuned'] = self.zero_shot(self.model_of(phase), phase.section['objective'])
        for seed, labels in self.labels_of.items():
            needs[f'labels/{seed}'] = labels.need
            needs |= {} if labels.kept else {f'labels_rows/{seed}': labels.rows.source}
            if labels.before is not None:
                needs |= {f'labels_before/{seed}': labels.before.need}
                needs |= {} if labels.before.kept else {f'labels_before_rows/{seed}': labels.rows.source}
            needs |= {f'labels_after/{name}/{seed}': phase for name, phase in labels.made}
        made = [name for labels in self.labels_of.values() for name, _ in labels.made]
        needs |= (more := attacked(self))
        section = {'targets': [{'role': t.role, 'label': t.label, 'seed': t.seed, 'row': t.row} for t in self.targets],
                   'seeds': list(self.seeds), 'tests': [*self.dataset.tests, *([ROBUST] if more else [])],
                   'student': student.name, 'examples': report.examples,
                   'resamples': report.resamples,
                   'diagnostics': [e.identity(s)
                                   for e, s in configs.chosen_among(self.config, 'report', 'diagnostics')],
                   **({'transforms': list(dict.fromkeys(made))} if made else {})}
        needs['labels_truth'] = self.truth[None]
        weak = self.models['teacher'].name if 'teacher' in self.models else 'given'
        return Phase('evaluate', section, needs, f'evaluation of {student.name} taught by {weak}', 'evaluate', True)

    def zero_shot(self, model: Model, objective: dict | None = None) -> Phase:
        """What a pretrained model answers on the test sets before any training; as an objective has it predict."""
        section = {'model': model.identity, 'num_classes': self.dataset.num_classes}
        section |= {'objective': objective} if objective else {}
        return Phase('predict', section, {f'predict/{k}': self.prepared(model, k) for k in self.dataset.tests},
                     'zero-shot', 'zero_shot')

    def model_of(self, phase: Phase) -> Model:
        """The model of a phase. Raises ConfigError for one that is none of the method's."""
        every = itertools.chain(self.models.values(), (one for m in self.models.values() for one in m.others()))
        found = next((m for m in every if m.identity == phase.section.get('model')), None)
        if found is None:
            raise ConfigError(f'method {self.config.method.name!r}: {phase.label} has no model, expected a fit')
        return found

    def _showing(self, model: Model, loss: str, needs: dict, inputs: Phase | None) -> tuple[Model, Phase]:
        """A model that gives what its head reads as well, and what that would be of the rows it learns if nothing were
        trained. Raises ConfigError for one whose backbone is not trained, or not pretrained."""
        if model.shown is None or model.backbone is None or not model.identity['weights']:
            raise ConfigError(f'objective {loss!r}: compares what the head of {model.name!r} reads with what it read '
                              'before training, expected a pretrained model of mode full or lora')
        read = self.prepared(model.backbone(), inputs.label if inputs is not None else 'inputs', inputs)
        rows = {'rows': needs['rows']} if 'rows' in needs else {}
        return model.shown(), self.table(TABLES['rows'], Settings(), {'features': read} | rows,
                                         'what is read untrained')

    def _targets(self, rows: Rows | None, targets) -> dict:
        if targets is None:
            return {} if rows is None else {'rows': rows.source}
        if isinstance(targets, Truth):
            assert rows is not None, 'truth is of rows of the pool'
            return {'rows': rows.source, 'targets': targets[rows.index]}
        if isinstance(targets, Labels):
            return {'rows': targets.need if targets.kept else (rows or targets.rows).source, 'targets': targets.need}
        return {'targets': targets} | ({} if rows is None else {'rows': rows.source})

    def _stopping(self, part: str, model: Model, section: dict, needs: dict) -> tuple[dict, dict, bool]:
        probe = model.featurize is not None
        rule = configs.stopping(self.config, part, probe)
        if rule is None:
            return section, needs, False
        entry, settings = rule
        group = self.dataset.pool.group
        held = configs.holdout(self.config, part, probe)
        if entry.options.get('evenly') and configs.chosen(self.config, 'optimizer')[0].options.get('exact'):
            raise ConfigError(f'{part}.stopping.name: {entry.name!r} chooses among steps, but optimizer '
                              f"{self.config.optimizer.name!r} takes none, expected 'calibrated'")
        stop = entry.identity(settings) | {'holdout': held}
        if held and isinstance(needs.get('rows'), Source):
            self._check_holdout(part, needs['rows'].value, section['hyper']['seed'])
        return section | {'stopping': stop}, needs | {'group': source(group)}, bool(entry.options.get('peers'))

    def _peers(self, section: dict, needs: dict, label: str, role: str) -> dict:
        """Two more such trainings, each on a half of the rows, for a rule that compares them."""
        return {f'peers/{i}': Phase('fit', section | {'hyper': section['hyper'] | {'peer': i}}, needs, label, role,
                                    role in SEES_TRUTH, False) for i in range(2)}

    def _check_holdout(self, part: str, rows: np.ndarray, seed) -> None:
        try:
            data.hold_out(self.dataset.pool.group[rows], self.config[part].stopping.holdout, seed)
        except DataError as e:
            raise ConfigError(f'{part}.{e}') from None

    def _fit_section(self, role: str, model: Model, loss: str, seed, more: dict) -> dict:
        config, part, optimizer = self.config, self.config[role], self.config.optimizer
        aim, values = loss_of(config, role, loss)
        values = Settings(values | more)
        steps, numbers = configs.chosen(config, 'optimizer')
        if steps.options.get('exact') and not (model.featurize and aim.options.get('convex')):
            raise ConfigError(f'optimizer.name: {steps.name!r} solves probes of convex losses, but {role} {aim.name!r} '
                              f'is {"not convex" if model.featurize else f"of mode {part.mode!r}"}, expected another, '
                              "or mode='probe', student.loss.name='xent' and method.baselines=()")
        rate = next(r for r in (part.learning_rate, optimizer.learning_rate, model.learning_rate) if r is not None)
        hyper = {'seed': seed, 'learning_rate': rate, **{k: optimizer[k] for k in ('weight_decay', 'clip', 'warmup')},
                 'optimizer': steps.traced(numbers), 'loss': aim.traced(values)}
        return {'model': model.identity, 'num_classes': self.dataset.num_classes, 'objective': aim.identity(values),
                'optimizer': steps.identity(numbers) | {'schedule': optimizer.schedule},
                'epochs': config.train.epochs if part.epochs is None else part.epochs,
                'watch': config.train.watch or (MOST_WATCHED if model.featurize else WATCHED),
                **{k: config.train[k] for k in ('batch_size', 'evaluations', 'window')}, 'hyper': hyper}
