"""Reinforcement learning from weak preferences, and distillation on the student's own texts.

`rlhf`: a reward model learns the weak labels; the student, tuned on the texts they prefer, is trained on what it writes
itself by that reward (GRPO, PPO, REINFORCE), or learns the best of n of its texts; `dpo` needs no reward model.
`on_policy_distillation`: at every token that the student writes, its target is softmax of anchor + alpha (after -
before) in log-probabilities: a weak model before and after its alignment, the anchor being the student before training.
"""
from typing import Any

from w2s_jax import config as configs
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods import written
from w2s_jax.methods.parts import Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.methods.written import Judged, Writer
from w2s_jax.objectives import ALGORITHMS, OBJECTIVES
from w2s_jax.registry import Setting, Settings

ROUNDS: dict[str, Any] = {
    'rounds': Setting(50, 1, 10**6, doc='of drawing texts and learning from them'),
    'asked': Setting(16, 1, 10**6, doc='prompts a round'),
    'group': Setting(4, 1, 10**4, doc='texts of each prompt in a round'),
    'minibatches': Setting(1, 1, 10**4, doc="parts that a round's texts are learned in"),
    'passes': Setting(1, 1, 10**4, doc="times that a round's texts are learned"),
    'policy_rate': Setting(None, 0, 1e3, '(]', doc="of learning from its own texts; None: the model's own"),
    'tuning_rate': Setting(None, 0, 1e3, '(]', doc="of SFT and DPO; None: the model's own"),
    'tuning_epochs': Setting(1, 1, 10**6, doc='of SFT and DPO')}


@METHODS.register('rlhf', **written.SETTINGS, **ROUNDS,
                  algorithms=Setting(('grpo',), choices=('reinforce', 'grpo', 'ppo'), doc='from a reward'),
                  kl=Setting(None, 0, 1e4, doc="of the penalty; None: the algorithm's own"),
                  reward=Setting('student', choices=('student', 'weak'), doc='whose model learns the weak preferences '
                                 'and gives the reward: a student, or the weak model itself'),
                  best_of=Setting(0, 0, 10**4, doc='texts a prompt, the best of which is learned; 0: none'),
                  true_reward=Setting(False, doc='also policies by the reward of the ceiling, marked as oracles'))
def rlhf(b: Parts) -> None:
    """Policies from weak preferences: SFT, DPO, best of n, reinforcement learning; a judge says what they write. The
    students are these, whatever `student.loss` and `method.baselines` say."""
    how = b.settings
    for seed in b.seeds:
        half = b.halves[seed].student
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        truth = b.fit('ceiling', b.student, half, b.truth, 'xent')
        b.ceiling(truth)
        learned = b.fit('student', b.student, half, labels, 'xent', label='reward model')
        b.students([learned], label='reward model')
        reward, judged = learned if how.reward == 'student' else weak, Judged(b, seed)
        if not isinstance(reward, Phase):
            raise ConfigError(f"method.reward: 'weak', but labels.source {b.config.labels.source!r} trains no model, "
                              "expected 'student'")
        tuned = b.fit('student', b.student, half, labels, 'sft', label='student sft', stopping=False, **_tuning(b))
        preferred = b.fit('student', b.student, half, labels, 'dpo', label='student dpo', start=tuned, stopping=False,
                          **_tuning(b))
        for name, phase in (('sft', tuned), ('dpo', preferred)):
            b.students([phase], label=name, judged=judged.of(phase, name))
        asked = written.prompts(b, half)
        if how.best_of:
            best_of_n(b, seed, tuned, reward, asked, judged)
        for name in how.algorithms:
            add(b, policy(b, seed, tuned, asked, name, reward=reward), name, judged)
            if how.true_reward:
                add(b, policy(b, seed, tuned, asked, name, reward=truth), f'{name}, true reward', judged, oracle=True)


@METHODS.register('on_policy_distillation', **written.SETTINGS, **ROUNDS,
                  alpha=Setting(1., 0, 100, doc='of what the weak model learned'),
                  weak_beta=Setting(.1, 0, 1e4, '(]', doc="of the weak model's alignment"))
def on_policy_distillation(b: Parts) -> None:
    """W2S-OPD: students that take over, on their own texts, what alignment changed in a weak model (arXiv 2607.26246,
    known from a summary alone), beside students of the weak labels."""
    how = b.settings
    for seed in b.seeds:
        before, after = written.aligned(b, seed, how.tuning_rate, how.tuning_epochs, how.tuning_rate,
                                        how.tuning_epochs, how.weak_beta)
        judged, asked = written.beside(b, seed, after), written.prompts(b, b.halves[seed].student)
        add(b, policy(b, seed, None, asked, 'distill', teacher=(after, before)), 'distilled', judged)


def _tuning(b: Parts) -> dict:
    return {'rate': b.settings.tuning_rate, 'epochs': b.settings.tuning_epochs}


def policy(b: Parts, seed: int, start: Phase | None, asked: Phase, name: str, reward: Phase | None = None,
           teacher: tuple[Phase, Phase] | None = None) -> Phase:
    """A phase that trains the student on its own texts (phases/policy.py).

    Args:
      start: what it goes on from, and is held to; None: the pretrained model.  asked: prompts.  name: of an algorithm.
      reward: a reward model.  teacher: (after, before) of `distill`.
    """
    how, config = b.settings, b.config
    model, tokenizer = written.model_of(b, b.student)
    aim, (steps, numbers) = ALGORITHMS[name], configs.chosen(config, 'optimizer')
    values = Settings({k: s.default for k, s in aim.settings.items()} | {
        k: how[k] for k in ('kl', 'alpha') if k in aim.settings and how.get(k) is not None})
    rate = next(r for r in (how.policy_rate, config.optimizer.learning_rate, model.learning_rate) if r is not None)
    section = {
        'model': model.identity, 'algorithm': aim.identity(values), 'pick': {'temperature': how.sampling_temperature},
        'steps': how.steps, 'stops': list(written.stops(b, tokenizer)), 'rounds': how.rounds, 'prompts': how.asked,
        'samples': how.group, 'minibatches': how.minibatches, 'passes': how.passes,
        'optimizer': steps.identity(numbers) | {'schedule': config.optimizer.schedule},
        'hyper': {'seed': seed, 'learning_rate': rate, 'optimizer': steps.traced(numbers),
                  'algorithm': aim.traced(values),
                  **{k: config.optimizer[k] for k in ('weight_decay', 'clip', 'warmup')}}}
    needs: dict = {'inputs': written.asking(b, model, asked)} | ({'start': start} if start else {})
    if reward is not None:
        section['reward'] = {'model': reward.section['model'], 'stop': False}
        needs['reward'] = reward
    if teacher is not None:
        section['teacher'] = {'after': teacher[0].section['model'], 'before': teacher[1].section['model']}
        needs |= {'after': teacher[0], 'before': teacher[1]}
    return Phase('policy', section, needs, f'student {name}', 'student')


def add(b: Parts, phase: Phase, name: str, judged: Judged, oracle: bool = False) -> None:
    """Says that a policy is a student: on the test set it answers which text it has come to prefer."""
    model, aim = b.student.policy, OBJECTIVES['sft']
    if model is None:
        raise ConfigError(f'method {b.config.method.name!r}: task {b.dataset.name!r} has no pairs, expected some')
    whole = model()
    section = {'model': whole.identity, 'num_classes': b.dataset.num_classes, 'objective': aim.identity(Settings()),
               'algorithm': phase.section['algorithm'], 'hyper': {'seed': phase.seed}}
    needs = {'model': phase} | {f'predict/{k}': b.prepared(whole, k, backbone=phase.needs.get('start'))
                                for k in b.dataset.tests}
    answers = Phase('predict', section, needs, f'{name} on the test set', 'student')
    b.students([answers], label=name, oracle=oracle, judged=judged.of(phase, name))


def best_of_n(b: Parts, seed: int, tuned: Phase, reward: Phase, asked: Phase, judged: Judged) -> None:
    """A student of the best of n of its own texts, by the reward: SFT on it, and DPO of the best against the worst."""
    how, (model, _) = b.settings, written.model_of(b, b.student)
    drawn = written.write(b, Writer(tuned), asked, seed, f'{how.best_of} texts a prompt', samples=how.best_of)
    first = b.table(TABLES['first'], Settings(), {'texts': drawn}, 'the first text of each prompt')
    n = min(how.prompts or 10**9, len(b.halves[seed].student)) * how.best_of
    scores = written.verdict(b, reward, asked, drawn, first, n)
    best, worst = (b.table(TABLES['ranked'], Settings(best=best), {'texts': drawn, 'scores': scores},
                           f'{"best" if best else "worst"} of {how.best_of}') for best in (True, False))
    learned = written.pairs(b, model, asked, best, worst, f'best of {how.best_of}: pairs of seed {seed}')
    for loss in ('sft', 'dpo'):
        phase = b.fit('student', b.student, None, learned, loss, inputs=learned, seed=seed, stopping=False, start=tuned,
                      label=f'student best of n, {loss}', **_tuning(b))
        b.students([phase], label=f'best of {how.best_of}, {loss}', judged=judged.of(phase, f'best of n, {loss}'))
