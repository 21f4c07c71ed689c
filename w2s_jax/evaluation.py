"""From predictions and the truth of the test sets to the numbers of results.json."""
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from w2s_jax import metrics
from w2s_jax.data import take
from w2s_jax.diagnostics.seeds import diagnosed, direct
from w2s_jax.labels import changes

# What every model is measured by beside accuracy: name -> (title, factor, digits). A measure describes itself in
# results.json, so that a report shows what a plug-in has measured without the plug-in.
MEASURES = {'top5': ('top-5 accuracy %', 100, 1), 'auroc': ('AUROC', 1, 3), 'ece': ('calibration error (ECE)', 1, 3),
            'legal': ('legal answers %', 100, 1), 'labels': ('right labels given to students %', 100, 1),
            'perplexity': ('perplexity of the test inputs', 1, 1),
            'preferred': ("texts that the judge prefers to the untuned student's %", 100, 1),
            'question_accuracy': ('questions answered right, of all options %', 100, 1)}


class Answers:
    """What the targets of an evaluation answer on one test set, a list over seeds for each of them."""

    def __init__(self, section: dict, needs: Mapping, test: str = 'test'):
        self.section, self.needs, self.test, self.truth = section, needs, test, needs[f'truth/{test}']
        self.group = needs.get(f'group/{test}')  # of examples that are not independent of each other

    def of(self, role: str, label: str | None = None) -> Any:
        """The answers of a target in the order of the seeds, a list; None if it did not answer this test set."""
        found = {t['seed']: predictions(self.needs.get(f'attack/{self.test}/{i}', self.needs[f'target/{i}']),
                                        self.test, self.needs.get(f'given/{self.test}'))
                 for i, t in enumerate(self.section['targets']) if t['role'] == role and label in (None, t['label'])}
        runs = [found.get(seed) for seed in self.section['seeds']]
        return None if None in runs else runs

    def needs_of(self, role: str, label: str | None = None) -> list:
        """The artifacts, or given labels, of a target in the order of the seeds."""
        found = {t['seed']: self.needs[f'target/{i}'] for i, t in enumerate(self.section['targets'])
                 if t['role'] == role and label in (None, t['label'])}
        return [found[seed] for seed in self.section['seeds']]


def evaluate(section: dict, needs: Mapping, render: Callable | None) -> dict:
    """Everything that is measured on the test sets.

    Args:
      section: targets (role, label, seed, row), seeds, tests, student, examples, resamples, transforms, diagnostics.
      needs: per test set 'truth/T' `[N]` and 'test/T' inputs, 'group/T' `[N]` if rows belong together, 'extra/...',
      'target/I': artifacts, or given labels
        `[., K]`; 'attack/T/I': what target I answers test set T in an artifact of its own;
        per seed 'labels/S' and, unless they say so themselves, of which rows of the pool: 'labels_rows/S';
        'labels_truth', of the pool; 'zero_shot'; 'judged/I': how likely a judge prefers the texts of target I.
    Returns: {'results': ..., 'curves': [...], 'examples': [...]}.
    """
    main = Answers(section, needs)
    rows = {t['label']: t['row'] for t in section['targets'] if t['role'] == 'student'}
    results = measured(main, rows)
    for name in section['tests']:
        if f'extra/{name}/question' in needs:
            add_questions(results, Answers(section, needs, name), needs[f'extra/{name}/question'])
        elif name != 'test':
            add_test(results, name, measured(Answers(section, needs, name), rows))
    shown = {'weak': main.of('weak')[0], **{label: main.of('student', label)[0] for label in rows}}
    return {'results': results, 'curves': list(curves(main, rows)),
            'examples': examples(shown, main.truth, needs['test/test'], render, section['examples'])}


def measured(answers: Answers, rows: dict[str, dict]) -> dict:
    """weak, ceiling, students and zero-shot on one test set; without what does not answer it."""
    section, needs, truth = answers.section, answers.needs, answers.truth
    how = {'group': answers.group, 'resamples': section['resamples']}
    allowed = needs.get('extra/allowed') if answers.test == 'test' else None
    weak, ceiling = answers.of('weak'), answers.of('ceiling')
    names = {t['role']: t['row'].get('model') for t in section['targets']}
    out: dict = {'weak': entry({'model': names['weak']}, weak, truth, allowed, how),
                 'ceiling': entry({'model': names['ceiling']}, ceiling, truth, allowed, how),
                 'majority': majority(needs['labels_truth'], truth, how)}
    if answers.test == 'test':
        out['weak'] |= {'labels': label_quality(needs, section['seeds'])}
        out['weak'] |= changes.transformed(needs, section['seeds'], section.get('transforms', ()))
        out['weak']['measures']['labels'] = described('labels', out['weak']['labels'])
    out['students'] = []
    for label, row in rows.items():
        student = answers.of('student', label)
        found = entry(row, student, truth, allowed, how) | compare(student, weak, ceiling, truth, how)
        first = next(iter(rows))
        if label != first and not row.get('oracle'):
            found['versus'] = {'label': first, **versus(student, answers.of('student', first), truth, how)}
        more = diagnosed(section['diagnostics'], student, weak, ceiling, truth, row, answers.of('student', first))
        found['measures'] |= more['measures']
        if weak and row.get('supervisor'):
            taught = answers.of('student', row['supervisor'])
            found['measures'] |= direct(section['diagnostics'], student, taught, ceiling, truth)
        found |= {k: more[k] for k in ('series', 'notes') if more.get(k)}
        if answers.test == 'test' and (told := preferred(answers, label)):
            found['measures'] |= {'preferred': described('preferred', told)}
        out['students'].append(found | learned(answers.needs_of('student', label)))
    if 'untuned' in needs and answers.test == 'test':
        out['perplexity'] = told = perplexities(needs, section['seeds'])
        for row in (r for r in out['students'] if r['model'] == section['student']):
            row['measures']['perplexity'] = described('perplexity', told['after' if row.get('tuned') else 'before'])
    if 'zero_shot' in needs and (found := predictions(needs['zero_shot'], answers.test)):
        out['zero_shot'] = entry({'model': section['student']}, [found], truth, allowed, how)
        if weak and ceiling:
            zero = [found] * len(section['seeds'])
            out['zero_shot'] |= {'pgr': compare(zero, weak, ceiling, truth, how)['pgr']}
        for row in out['students']:
            if row['model'] == section['student']:
                student = answers.of('student', row['label'])
                row['beyond_zero_shot'] = versus(student, [found] * len(student), truth, how)
    return out


def preferred(answers: Answers, label: str) -> dict | None:
    """How often a judge prefers what a student writes, `judged/I` `[n, 2]` probabilities of its text and of another's:
    their mean, over seeds, with an interval over prompts; None of students that nobody judged."""
    found = {t['seed']: answers.needs[f'judged/{i}'].arrays['labels'][:, 0]
             for i, t in enumerate(answers.section['targets'])
             if t['role'] == 'student' and t['label'] == label and f'judged/{i}' in answers.needs}
    runs = [found[seed] for seed in answers.section['seeds'] if seed in found]
    if not runs:
        return None
    each = np.stack(runs).astype(np.float64)
    return metrics.summarise(each.mean(1).tolist()) | metrics.accuracy_interval(
        each, resamples=answers.section['resamples'])


def perplexities(needs: Mapping, seeds) -> dict:
    """Of the student's model before and after the task's texts, over seeds."""
    found = {'before': [needs['untuned']], 'after': [needs[f'tuned/{s}'] for s in seeds if f'tuned/{s}' in needs]}
    return {k: metrics.summarise([perplexity(need) for need in v]) for k, v in found.items()}


def perplexity(need, test: str = 'test') -> float:
    """Of the tokens of a test set's texts, each text weighed alike: exp of minus the mean of log p, where p is what a
    next-token head predicts as class 0 (objectives.next_token)."""
    found = predictions(need, test)
    p = np.where(found['top'] == 0, found['top_probability'], 0).sum(-1).astype(np.float64)
    return float(np.exp(-np.log(np.maximum(p, 1e-30)).mean()))


def add_test(results: dict, name: str, found: dict) -> None:
    """Puts what was measured on a further test set beside each model's main numbers."""
    pairs = [(results[k], found[k]) for k in ('weak', 'ceiling', 'zero_shot', 'majority') if k in results]
    for mine, theirs in [*pairs, *zip(results['students'], found['students'], strict=True)]:
        keep = ('accuracy', 'pgr', 'pgr_seeds', 'gain', 'versus', 'beyond_zero_shot', 'agreement', 'measures', 'series',
                'notes')
        if theirs.get('accuracy'):
            mine.setdefault('tests', {})[name] = {k: theirs[k] for k in keep if k in theirs}


def add_questions(results: dict, answers: Answers, question: np.ndarray) -> None:
    """Puts `question_accuracy` among each model's main measures: how often, of all options of a question, the true one
    is the likeliest to be right (equal ones share).

    answers: on a test set that has every option of some questions of the main one.  question: `[N]`, of its rows.
    """
    found = {'weak': answers.of('weak'), 'ceiling': answers.of('ceiling')}
    if 'zero_shot' in answers.needs:
        found['zero_shot'] = [predictions(answers.needs['zero_shot'], answers.test)]
    students = [(s, answers.of('student', s['label'])) for s in results['students']]
    for mine, runs in [*((results[k], v) for k, v in found.items()), *students]:
        if runs:
            values = [metrics.question_accuracy(_scores(r), answers.truth, question) for r in runs]
            mine['measures']['question_accuracy'] = described('question_accuracy', metrics.summarise(values))


def _scores(run: dict) -> np.ndarray:
    """The probability of class 1 of two, `[N]`."""
    return np.where(run['top'] == 1, run['top_probability'], 0).sum(-1)


def entry(row: dict, runs: list[dict] | None, truth: np.ndarray, allowed: np.ndarray | None, how: dict) -> dict:
    """What results.json says of a model: its row, its quality, and the measures that describe themselves. how: keywords
    of the intervals in metrics.py."""
    if runs is None:
        return row | {'measures': {}}
    found = quality(runs, truth, allowed)
    found['accuracy'] |= metrics.accuracy_interval(correct(runs, truth), **how)
    return row | found | {'measures': {k: described(k, v) for k, v in found.items() if k in MEASURES and v}}


def majority(pool: np.ndarray, truth: np.ndarray, how: dict) -> dict:
    """What always answering the pool's most frequent class gets right: no model is any good that does not beat it."""
    classes, counts = np.unique(pool, return_counts=True)
    answer = int(classes[counts.argmax()])
    right = (truth == answer)[None]
    return {'model': 'none', 'class': answer, 'share_of_pool': float(counts.max() / len(pool)), 'measures': {},
            'accuracy': metrics.summarise(right.mean(axis=1)) | metrics.accuracy_interval(right, **how)}


def described(name: str, value: dict) -> dict:
    """A summary over seeds with its title, and how it is shown."""
    title, factor, digits = MEASURES[name]
    return {'title': title, 'factor': factor, 'digits': digits, **value}


def learned(artifacts: list) -> dict:
    """What the objective logged last, over seeds: numbers with their mean, vectors as the mean of each."""
    logged = [getattr(a, 'metrics', {}).get('aux') or {} for a in artifacts]
    found: dict = {}
    for name in logged[0] if all(logged) else ():
        values = np.array([one[name] for one in logged], np.float64)
        found[name] = metrics.summarise(values.tolist()) if values.ndim == 1 else {
            'values': values.mean(0).tolist(), 'seeds': values.tolist()}
    stopped: list[Any] = [getattr(a, 'metrics', {}).get('stopped') for a in artifacts]
    more = {'stopped': {'steps': [s['step'] for s in stopped],
                        'score': float(np.mean([max(s['scores']) for s in stopped]))}} if all(stopped) else {}
    return ({'aux': found} if found else {}) | more


def predictions(need, test: str = 'test', given: np.ndarray | None = None) -> Any:
    """The best classes `[N, k]` and their probabilities, of a model or of labels `[N, K]` that came with the data; of a
    model on the main test set also what it answered during training (diagnostics/registry.py). None of what does not
    answer that test set.

    given: such labels of a further test set; without them it has no weak model.
    """
    if hasattr(need, 'arrays'):
        if f'{test}.top' not in need.arrays:
            return None
        found = {k: need.arrays[f'{test}.{k}'] for k in ('top', 'top_probability')}
        if test == 'test' and 'watched' in need.arrays:
            found |= {'watched': need.arrays['watched'], 'watched_epochs': epochs(need)}
        return found
    need = need if test == 'test' else given
    if need is None:
        return None
    top = np.argsort(-need, axis=-1, kind='stable')[:, :5]
    return {'top': top, 'top_probability': np.take_along_axis(need, top, -1)}


def correct(runs: list[dict], truth: np.ndarray) -> np.ndarray:
    """`[S, N]` bool: whose first answer is right."""
    return np.stack([r['top'][:, 0] == truth for r in runs])


def quality(runs: list[dict], truth: np.ndarray, allowed: np.ndarray | None) -> dict:
    """accuracy, top5, ece and, where the task knows which answers are allowed, legal: each over seeds."""
    right = correct(runs, truth)
    out = {'accuracy': metrics.summarise(right.mean(axis=1)),
           'ece': metrics.summarise([metrics.expected_calibration_error(r['top_probability'][:, 0], c)
                                     for r, c in zip(runs, right, strict=True)])}
    if runs[0]['top'].shape[1] == 5:
        out['top5'] = metrics.summarise([metrics.top_k_accuracy(r['top'], truth) for r in runs])
    if runs[0]['top'].shape[1] == 2:
        out['auroc'] = _auroc(runs, truth)
    if allowed is not None:
        out['legal'] = metrics.summarise([metrics.share_allowed(r['top'][:, 0], allowed) for r in runs])
    return out


def _auroc(runs: list[dict], truth: np.ndarray) -> dict | None:
    values = [metrics.auroc(_scores(r), truth) for r in runs]
    return None if None in values else metrics.summarise(values)


def versus(student: list[dict], other: list[dict], truth, how: dict) -> dict:
    """A student's accuracy less another's, with an interval, its p value and what could have been found."""
    a, b = correct(student, truth), correct(other, truth)
    return metrics.paired_difference(a, b, **how) | {'p': metrics.paired_p(a, b, how['group'])}


def compare(student: list[dict], weak: list[dict] | None, ceiling: list[dict], truth, how: dict) -> dict:
    """A student's PGR and gain with intervals, and its agreement with the supervisor; nothing without one."""
    if weak is None:
        return {}
    right = [correct(runs, truth) for runs in (weak, student, ceiling)]
    agreements = [metrics.agreement(s['top'][:, 0], w['top'][:, 0], truth) for s, w in zip(student, weak, strict=True)]
    return {'pgr': metrics.pgr_interval(*right, **how),
            'pgr_seeds': [metrics.pgr(*(float(r[s].mean()) for r in right)) for s in range(len(student))],
            'gain': metrics.paired_difference(right[1], right[0], **how),
            'agreement': {k: None if None in values else metrics.summarise(values)
                          for k in agreements[0] for values in [[a[k] for a in agreements]]}}


def label_quality(needs: Mapping, seeds) -> dict:
    """How right the weak labels are on the rows that students learn."""
    found = []
    for seed in seeds:
        answers, rows = changes.labels_of(needs, 'labels', seed)
        found.append(metrics.accuracy(answers, needs['labels_truth'][rows]))
    return metrics.summarise(found)


def curves(answers: Answers, rows: dict[str, dict]):
    """Loss and test accuracy during training, over seeds; one entry for each model that was trained."""
    truth, seeds = answers.truth, answers.section['seeds']
    weak = answers.of('weak')
    for kind, label in [('teacher', 'weak'), ('ceiling', 'ceiling'), *(('student', label) for label in rows)]:
        runs = answers.needs_of('weak' if kind == 'teacher' else kind, label if kind == 'student' else None)
        if not all(hasattr(r, 'arrays') and 'watched' in r.arrays for r in runs):
            continue
        steps = runs[0].arrays['watched_steps']
        if len({r.arrays['watched'].shape for r in runs}) > 1:
            continue  # seeds whose filters left so different numbers of rows that they were looked at unequally often
        watched = np.stack([r.arrays['watched'] for r in runs])
        right = watched == truth[:watched.shape[-1]]
        found = {'label': label, 'kind': kind, **_loss_curve(runs),
                 'accuracy': {'step': steps.tolist(), **_band(right.mean(-1))}}
        found['epochs'] = epochs(runs[0]).tolist()
        stopped = [r.metrics.get('stopped') for r in runs]
        if all(stopped):
            found['stopped'] = [s['step'] for s in stopped]
        if kind == 'student' and weak and answers.of('ceiling'):
            found['pgr'] = during(right, weak, answers.of('ceiling'), truth)
        if kind != 'teacher':
            says = np.stack([weak[i]['top'][:watched.shape[-1], 0] for i in range(len(seeds))])[:, None]
            found['stops'] = stops(steps, right, watched == says if kind == 'student' else None)
        yield found


def epochs(run) -> np.ndarray:
    """`[T]`: how many passes over its rows, in whole batches, a model had made when it was looked at."""
    batch = run.metrics['examples'] // run.metrics['steps']
    return run.arrays['watched_steps'] / (run.metrics['rows'] // batch)


def during(right: np.ndarray, weak: list[dict], ceiling: list[dict], truth: np.ndarray) -> list[float | None]:
    """PGR of mean accuracies at every look, by the final weak models and ceilings on the same rows.

    right: `[S, E, W]` bool, a student's on the watched rows.
    """
    rows = right.shape[-1]
    low, high = (float(correct(runs, truth)[:, :rows].mean()) for runs in (weak, ceiling))
    return [metrics.pgr(low, float(a), high) for a in right.mean((0, 2))]


def stops(steps: np.ndarray, right: np.ndarray, agrees: np.ndarray | None) -> dict:
    """Where training might have been stopped, and how good the model was there, on the watched rows.

    Args:
      steps: `[T]`, when it was looked at.  right, agrees: `[S, T, M]` bool, with the truth and with the weak model.
    Returns: {'best', 'weak', 'final'}: {'step', 'accuracy'} of the mean over seeds. 'best' is an oracle: it knows the
      truth. 'weak' does not: it is the first step of highest agreement with the weak model (Burns et al. 2023,
      Fig. 13, early stopping on weak labels); absent where `agrees` is None.
    """
    accuracy = right.mean(axis=(0, 2))
    at = {'best': accuracy.argmax(), 'final': len(steps) - 1}
    if agrees is not None:
        at['weak'] = agrees.mean(axis=(0, 2)).argmax()
    return {name: {'step': int(steps[i]), 'accuracy': float(accuracy[i])} for name, i in at.items()}


def compare_all(section: dict, needs: dict) -> dict:
    """Differences in accuracy between students, paired over seeds and test examples; beside `evaluate` the only reader
    of the test set's truth.

    Args:
      section: 'pairs', each with 'a' and 'b', the names of the runs to compare, one a seed in the same order, and with
        what says who they are; 'resamples'.
      needs: 'truth' `[N]`, 'group' `[N]` if rows belong together, and artifacts by name.
    Returns: {'comparisons': [...]}: the pairs without 'a' and 'b', with the 'mean' of a - b, 'low', 'high', 'p' and
      what was 'detectable'.
    """
    truth = needs['truth']
    names = {name for pair in section['pairs'] for name in (*pair['a'], *pair['b'])}
    right = {name: correct([predictions(needs[name])], truth)[0] for name in sorted(names)}
    how = {'group': needs.get('group'), 'resamples': section['resamples']}
    return {'comparisons': [_compared(pair, right, how) for pair in section['pairs']]}


def _compared(pair: dict, right: dict[str, np.ndarray], how: dict) -> dict:
    a, b = (np.stack([right[name] for name in pair[side]]) for side in 'ab')
    return {k: v for k, v in pair.items() if k not in ('a', 'b')} | {
        **metrics.paired_difference(a, b, **how), 'p': metrics.paired_p(a, b, how['group'])}


def _loss_curve(runs, points: int = 60) -> dict:
    losses = [r.arrays['loss'].astype(np.float64) for r in runs]
    points = min(points, *map(len, losses))  # seeds may have different numbers of steps, where a filter dropped rows
    edges = [np.linspace(0, len(loss), points + 1).round().astype(int) for loss in losses]
    means = np.stack([[loss[a:b].mean() for a, b in itertools.pairwise(at)]
                      for loss, at in zip(losses, edges, strict=True)])
    first, steps = edges[0][1:], len(losses[0])
    return {'step': first.tolist(), 'progress': (first / steps).tolist(), 'loss': _band(means)}


def _band(values: np.ndarray) -> dict:
    """`[S, T]` to the mean and standard error at each time."""
    sem = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return {'mean': values.mean(axis=0).tolist(), 'sem': None if sem is None else sem.tolist()}


def examples(shown: dict[str, dict], truth, test, render: Callable | None, number: int) -> list[dict]:
    """HTML of test rows on which weak model, student and truth differ: first those where a student is right."""
    test = getattr(test, 'arrays', test)
    if render is None or not number:
        return []
    answers = {k: v['top'][:, 0] for k, v in shown.items()}
    students = np.stack([a for k, a in answers.items() if k != 'weak'])
    weak_wrong = answers['weak'] != truth
    recovered = weak_wrong & (students == truth).any(0)
    neither = weak_wrong & ~recovered & (students != answers['weak']).any(0)
    rows = np.concatenate([np.flatnonzero(recovered)[:-(-number * 2 // 3)], np.flatnonzero(neither)])[:number]
    said = {'truth': truth, **answers}
    return [{'row': int(i), 'html': render(take(test, i), {k: int(a[i]) for k, a in said.items()})} for i in rows]
