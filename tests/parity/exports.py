"""Exported models answer in transformers as they did here: full, LoRA and probes, by the code that the export prints.

COMMAND: make parity. Needs PyTorch.
"""
import io
import json
import pathlib
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / 'helpers')]
import tiny  # noqa: E402
from words import own, sentences  # noqa: E402

from w2s_jax.engine import experiment, export  # noqa: E402
from w2s_jax.tasks import TASKS  # noqa: E402

CASES = [(mode, place, layers) for mode in ('full', 'lora', 'probe') for place, layers in (('last', 0), ('mean', 1))]


def largest(folder: pathlib.Path, mode: str, place: str, layers: int) -> float:
    """The largest difference between the two, over the test set, of how far the logits are apart."""
    model, rows = tiny.folder(folder / 'tiny'), folder / 'words.jsonl'
    rows.write_text('\n'.join(map(json.dumps, sentences())))
    described = json.loads((model / 'tokenizer_config.json').read_text())
    (model / 'tokenizer_config.json').write_text(json.dumps(described | {'pad_token': 'a'}))
    c = own(model, rows, **{
        'teacher.mode': mode, 'student.mode': mode, 'student.read_out': place, 'student.layers': layers, 'seeds': (5,),
        'student.stopping.name': '',
        'optimizer.learning_rate': .01, 'train.epochs': 4, 'method.baselines': (), 'student.loss.name': 'xent'})
    experiment.run(c, folder / 'w', io.StringIO())
    export.write(folder / 'w', 'student', 'xent', 5, folder / 'out')
    names: dict = {}
    exec(export.snippet(folder / 'out'), names)
    texts = TASKS['files'].fn(c.task, lambda *a: None).test.inputs['text'][:, 0].tolist()
    found = names['logits'](texts).double().numpy()
    stored = export.find(folder / 'w', 'student', 'xent', 5).arrays
    said = np.log(stored['test.top_probability'].astype(np.float64))
    ours, theirs = said[:, 0] - said[:, 1], np.subtract(*np.take_along_axis(found, stored['test.top'], 1).T)
    sure = ours < 8  # float32 has too few digits for the lesser probability of others
    assert sure.sum() > 20 and np.ptp(ours[sure]) > .1, 'too few answers that differ'
    return float(np.abs(ours - theirs)[sure].max())


if __name__ == '__main__':
    worst = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            worst[case] = largest(pathlib.Path(folder), *case)
        print(*case, f'{worst[case]:.1e}')
    sys.exit(max(worst.values()) > 1e-3)
