"""The whole pipeline on eight devices: the numbers of one."""
import dataclasses
import functools

import jax
import numpy as np
from pipeline_test import plan, run, small, students

from w2s_jax.engine import execute as execution
from w2s_jax.phases import kinds
from w2s_jax.runtime import sharding
from w2s_jax.store.artifacts import Store
from w2s_jax.tasks import synthetic


def test_one_and_eight_devices_agree(tmp_path):
    config, results = small(), {}
    config.student.loss.name = 'confidence'
    for devices in (1, 8):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]).reshape(devices, 1, 1), sharding.AXES)
        dataset = synthetic.load(config.task)
        target, execute = plan(config, dataset)
        context = dataclasses.replace(execute.keywords['context'], mesh=mesh)
        artifacts = execution.execute([target.target], Store(tmp_path / str(devices)),
                                      functools.partial(kinds.run, context=context), lambda *a: None)
        results[devices] = {k: a.params() for k, a in students(target, artifacts).items()}
    for name, one in results[1].items():
        for layer, parameters in one.items():
            for key, value in parameters.items():
                np.testing.assert_allclose(value, results[8][name][layer][key], atol=1e-5)


def test_a_work_directory_does_not_keep_its_mesh(tmp_path):
    first = run(small(), tmp_path)
    other = small()
    other.mesh.data = 8
    assert run(other, tmp_path)['students'] == first['students']
