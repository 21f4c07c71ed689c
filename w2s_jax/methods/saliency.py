"""How salient is the task to the student? (arXiv 2312.09390, section 5.2.3.)

Five trainings of one model, in the order of accuracy that the paper found: a probe on weak labels, a probe on truth,
fine-tuning on weak labels, fine-tuning on weak labels and then a probe on truth, fine-tuning on truth (the ceiling). If
fine-tuning on weak labels made the task linear in the features, the probe on truth after it is near the ceiling. What
has seen truth and is not the ceiling is an oracle: marked, and never ranked.
"""
import dataclasses

from w2s_jax.errors import ConfigError
from w2s_jax.methods.parts import Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.models.modes import Model
from w2s_jax.registry import Setting


@METHODS.register('saliency',
                  epochs=Setting(20, 1, 10**6, doc='of probes; at most, where a rule chooses the step'),
                  rate=Setting(None, 0, 1e3, '(]', doc="the learning rate of probes; None: the usual one of probes"))
def saliency(b: Parts) -> None:
    """Probes and fine-tuned students, on weak labels and on truth, and a probe on truth after fine-tuning."""
    probe = probe_of(b)
    how = {'epochs': b.settings.epochs, 'rate': b.settings.rate or probe.learning_rate}
    for seed in b.seeds:
        half = b.halves[seed].student
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        b.ceiling(b.fit('ceiling', b.student, half, b.truth))
        # Kept whatever train.keep says: probes read their backbones.
        tuned = {loss: dataclasses.replace(b.fit('student', b.student, half, labels, loss), keep=True)
                 for loss in b.losses}
        for loss, phase in tuned.items():
            b.students([phase], method='naive', label=loss)
        for loss in b.losses:
            label = f'probe {loss}'
            b.students([b.fit('student', probe, half, labels, loss, label=f'student {label}', **how)], label=label)
        b.students([b.fit('ceiling', probe, half, b.truth, label='probe on truth', **how)], label='probe on truth',
                   oracle=True)
        for loss, phase in tuned.items():
            label = f'{loss}, then probe on truth'
            after = b.fit('ceiling', probe, half, b.truth, backbone=phase, label=label, **how)
            b.students([after], label=label, oracle=True)


def probe_of(b: Parts) -> Model:
    """The student's model as a probe. Raises ConfigError if there is nothing to fine-tune below its head."""
    if b.config.student.mode == 'probe':
        raise ConfigError("student.mode: 'probe', but method 'saliency' fine-tunes the student's backbone and puts "
                          "probes beside it, expected 'full' or 'lora'")
    if b.student.backbone is None:
        raise ConfigError(f"student.model: {b.student.name!r} has no backbone, expected one for method 'saliency'")
    return b.student.backbone()
