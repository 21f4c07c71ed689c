"""Supervisors that are right equally often and wrong on other rows (arXiv 2312.09390, E.2, figures 25 and 26).

  python -m experiments.run --config=configs/paper/error_structures.py --workdir=runs/structures
  python -m experiments.run --config=configs/paper/error_structures.py:sst2 --workdir=runs/structures_sst2 \\
      --config.teacher.model=FOLDER --config.student.model=FOLDER --config.task.path=FOLDER      # texts, by probes

The first needs nothing, and half a minute of CPU time; the second two models and SST-2, some 20 minutes on two cores
with SmolLM2's first 6 and 18 layers (22 TFLOP). Students whose labels are made from truth are oracles, and marked. On
the salient concept, measured: docs/methods.md, "Simulated errors". Of texts also the longest and the shortest are made
wrong; figure 26, the dynamics, are the curves in the report.
"""
from configs import probe, salient_concept
from w2s_jax.config import compose


def get_config(task: str = 'salient'):
    """`salient`, or a task of texts."""
    c = salient_concept.get_config() if task == 'salient' else probe.get_config(task)
    if task == 'salient':
        c.seeds = tuple(range(5))
    c.method.name, c.method.baselines, c.student.loss.name = 'simulated', (), 'xent'
    c = compose(c)
    texts = () if task == 'salient' else ('longest', 'shortest')
    c.method.errors = ('random', *texts, 'ceiling_unsure', 'ceiling_sure')
    return c
