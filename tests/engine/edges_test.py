"""What is far from any sensible input, and still ends in one line: paths, platforms, config files, scripts."""
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import types

import ml_collections
import numpy as np
import pytest
import tiny
from commands import error

import w2s_jax
from configs import salient_concept
from w2s_jax import config as configs
from w2s_jax import paths
from w2s_jax.engine import export, sweep
from w2s_jax.errors import ConfigError, DataError, StoreError, UserError, WeightsError
from w2s_jax.models import hf, language, lora, tokens
from w2s_jax.phases import context
from w2s_jax.report import page
from w2s_jax.tasks.chess import puzzles
from w2s_jax.train.runs import History

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f'--config={ROOT}/configs/salient_concept.py'


def small() -> ml_collections.ConfigDict:
    c = salient_concept.get_config()
    c.seeds, c.report.html = (0,), False
    c.task.train_size, c.task.test_size, c.train.epochs, c.train.batch_size = 80, 40, 1, 20
    return c


# Platforms


@pytest.mark.long
@pytest.mark.parametrize('platform', ['tpu', 'nonsense', 'cuda'])
def test_a_platform_that_is_not_here(tmp_path, platform):
    done = subprocess.run([sys.executable, '-m', 'experiments.run', CONFIG, f'--workdir={tmp_path}'], cwd=ROOT,
                          env=os.environ | {'JAX_PLATFORMS': platform}, capture_output=True, text=True, timeout=120)
    assert error((done.returncode, done.stdout, done.stderr)).startswith(f'JAX_PLATFORMS={platform}: JAX cannot start')
    assert done.stderr.count('\n') == 1


# Scripts


@pytest.mark.parametrize('config', [None, 'configs/quickstart.py', {'train': {'epochs': 1}}, 3, [], b'x', object(),
                                    ml_collections.ConfigDict({'train': 3}), ml_collections.ConfigDict({'plugins': 5}),
                                    ml_collections.ConfigDict({'task': {'name': ['x']}}),
                                    ml_collections.ConfigDict({'student': {'model': 3}}),
                                    ml_collections.ConfigDict({'student': {'stopping': {'name': ('a',)}}}),
                                    ml_collections.ConfigDict({'labels': {'transforms': 3}}),
                                    ml_collections.ConfigDict({'seeds': (s for s in (0, 1))})])
@pytest.mark.parametrize('call', ['run', 'grid'])
def test_what_is_no_config(tmp_path, config, call):
    more = ([{'task.seed': 1}],) if call == 'grid' else ()
    with pytest.raises(UserError) as caught:
        getattr(w2s_jax, call)(config, *more, tmp_path / 'w', stream=io.StringIO())
    assert '\n' not in str(caught.value) and not (tmp_path / 'w').exists()


@pytest.mark.parametrize('workdir', [None, '', ' ', 3, 'gs://bucket/w', 'x' * 300, '/dev/null', '/dev/null/w', 'a\0b',
                                     b'x', ROOT / 'README.md', 'y/' * 5000])
def test_what_is_no_work_directory(workdir, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for call in (lambda: w2s_jax.run(small(), workdir), lambda: w2s_jax.Results(workdir),
                 lambda: w2s_jax.grid(small(), [{'task.seed': 1}], workdir)):
        with pytest.raises(ConfigError, match=r'^workdir: ') as caught:
            call()
        assert '\n' not in str(caught.value) and len(str(caught.value)) < 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('call', [
    lambda w: w2s_jax.run(small()), lambda w: w2s_jax.run(small(), w, nonsense=1), lambda w: w2s_jax.default_config(1),
    lambda w: w2s_jax.run(small(), w, stream='out.txt'), lambda w: w2s_jax.grid(small(), None, w),
    lambda w: w2s_jax.grid(small(), [{'task.seed': 1}], w, executor='slurm'),
    lambda w: w2s_jax.grid(small(), [{'task.seed': 1}], w, executor=None),
    lambda w: w2s_jax.grid(small(), [{'task.seed': 1}], w, retries=3),
    lambda w: w2s_jax.grid(small(), [{'task.seed': 1}], w, executor='ray', nonsense=3),
    lambda w: w2s_jax.grid(small(), [{'task.seed': {1, 2}}], w), lambda w: w2s_jax.grid(small(), [{3: 2}], w),
    lambda w: w2s_jax.grid(small(), 'task.seed', w), lambda w: w2s_jax.grid(small(), [], w),
    lambda w: w2s_jax.values('a', 3), lambda w: w2s_jax.values(3, [3]), lambda w: w2s_jax.values('a', 'text'),
    lambda w: w2s_jax.product([3]), lambda w: w2s_jax.product(None), lambda w: w2s_jax.zipped([{'a': 1}], 3),
    lambda w: w2s_jax.chain({'a': 1}), lambda w: w2s_jax.Results(w).raw, lambda w: w2s_jax.Results(w).students])
def test_calls_that_are_wrong(tmp_path, call):
    with pytest.raises(UserError) as caught:
        call(tmp_path / 'w')
    assert '\n' not in str(caught.value) and not (tmp_path / 'w').exists()


def test_numbers_of_numpy_paths_and_generators_are_taken(tmp_path):
    given = ml_collections.ConfigDict({'seeds': [np.int64(0), np.int32(3)], 'train': {'epochs': np.int64(3)},
                                       'optimizer': {'learning_rate': np.float32(.5)},
                                       'task': {'path': pathlib.Path('/x')}})
    made = configs.compose(given)
    assert (made.seeds, made.train.epochs, made.optimizer.learning_rate, made.task.path) == ((0, 3), 3, .5, '/x')
    assert {type(v) for v in (*made.seeds, made.train.epochs, made.optimizer.learning_rate)} == {int, float}
    cells = sweep.product((c for c in sweep.values('task.seed', np.arange(2))),
                          sweep.values('student.learning_rate', (x for x in np.linspace(0, 1, 2))))
    assert json.dumps(sweep.check(c for c in cells)) == json.dumps(
        [{'task.seed': s, 'student.learning_rate': r} for s in (0, 1) for r in (0., 1.)])
    assert sweep.check([{'seeds': range(2)}]) == [{'seeds': [0, 1]}]


@pytest.mark.long
def test_a_grid_of_generated_cells_with_numbers_of_numpy(tmp_path):
    results = w2s_jax.grid(small(), ({'task.seed': s, 'seeds': range(1)} for s in np.arange(2)), str(tmp_path),
                           stream=io.StringIO())
    assert len(results.students) == 2 and results.raw['axes']['task.seed'] == [0, 1]


# Paths and config files


@pytest.mark.parametrize(('workdir', 'said'), [
    ('', "--workdir: '', expected a folder"), ('gs://b/w', '--workdir: gs://b/w, expected a folder here; a URL is'),
    ('/dev/null', '--workdir: /dev/null: a file'), ('/dev/null/w', '--workdir: /dev/null/w: lies below a file'),
    ('x' * 300, '--workdir: xxx')])
def test_work_directories_of_commands(cli, workdir, said):
    assert error(cli(CONFIG, f'--workdir={workdir}')).startswith(said)


@pytest.mark.parametrize('text', ['import sys\nsys.exit()', 'raise SystemExit(0)', 'import sys\ndef get_config():\n'
                                  '    sys.exit("over")', 'class Mine(BaseException): pass\nraise Mine("x")',
                                  'def get_config(): raise GeneratorExit', 'def get_config(): return None'])
def test_a_config_file_that_ends_the_program(cli, tmp_path, text):
    (tmp_path / 'mine.py').write_text(text)
    line = error(cli(f'--config={tmp_path / "mine.py"}', f'--workdir={tmp_path / "w"}'))
    assert line.startswith(f'--config={tmp_path / "mine.py"}: ')


def test_a_plugin_that_ends_the_program(cli, tmp_path, monkeypatch):
    (tmp_path / 'leaving_plugin.py').write_text('import sys\nsys.exit()\n')
    monkeypatch.syspath_prepend(tmp_path)
    line = error(cli(CONFIG, f'--workdir={tmp_path / "w"}', '--config.plugins=leaving_plugin'))
    assert line.startswith("plugins: cannot import 'leaving_plugin' (SystemExit")


def test_pipes_and_devices_are_not_waited_for(cli, tmp_path):
    os.mkfifo(tmp_path / 'pipe.py')
    assert 'a pipe or a device' in error(cli(f'--config={tmp_path / "pipe.py"}', f'--workdir={tmp_path / "w"}'))
    for name in ('pipe.csv', 'pipe.npz', 'results.json', 'config.json'):
        os.mkfifo(tmp_path / name)
    own = (f'--config={ROOT}/configs/own_data.py', f'--workdir={tmp_path / "w"}', '--config.task.text=a',
           '--config.task.label=b')
    assert 'a pipe or a device' in error(cli(*own, f'--config.task.path={tmp_path / "pipe.csv"}'))
    assert 'cannot be read' in error(cli(*own, f'--config.task.path={"x" * 300}.csv'))
    for read in (puzzles.read_puzzles, lambda path: hf.read(tmp_path), lambda path: page.write(tmp_path)):
        with pytest.raises(UserError, match='a pipe or a device'):
            read(tmp_path / 'pipe.npz')
    with pytest.raises(ConfigError, match='no such folder'):
        language.find('z/' * 3000, 'student.model')


# Exports


def test_files_are_written_aside_and_only_where_that_is_asked_for(tmp_path):
    source, out = tmp_path / 'model', tmp_path / 'out'
    with pytest.raises(WeightsError, match='overwrite the checkpoint'), export.aside(source, source):
        pass
    with export.aside(out, source) as part:
        (part / 'below').mkdir()
        (part / 'below' / 'x').write_text('new')
        assert not out.exists()
    assert (out / 'below' / 'x').read_text() == 'new' and [p.name for p in tmp_path.iterdir()] == ['out']
    with pytest.raises(StoreError, match=r'has something in it, expected an empty folder, or --overwrite'):
        export.aside(out, source).__enter__()
    (out / 'mine').write_text('kept')
    with pytest.raises(RuntimeError), export.aside(out, source, True) as part:
        (part / 'mine').write_text('half')
        raise RuntimeError
    with export.aside(out, source, True) as part:
        (part / 'below').mkdir()
        (part / 'below' / 'x').write_text('newer')
    assert (out / 'below' / 'x').read_text() == 'newer' and (out / 'mine').read_text() == 'kept'
    assert {p.name for p in out.iterdir()} == {'below', 'mine'}


def test_what_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(StoreError, match=r'/proc/out: cannot be written \('):
        export.aside(pathlib.Path('/proc/out'), tmp_path).__enter__()
    with pytest.raises(StoreError, match='no space left'), export.aside(tmp_path / 'out', tmp_path):
        (pathlib.Path('/dev/full')).write_text('x')
    assert list(tmp_path.iterdir()) == []
    for place in ('/dev/null', '/dev/null/x', '', 'gs://b/x'):
        with pytest.raises(ConfigError, match=r'^--out: '):
            export.write(tmp_path, 'student', 'xent', 0, paths.folder(place, '--out'))


# Models and texts


ABSURD = [{'num_hidden_layers': 10**9}, {'hidden_size': -16}, {'hidden_size': [16]}, {'rope_theta': 0},
          {'rope_theta': -1.}, {'vocab_size': 0}, {'vocab_size': 10**30}, {'max_position_embeddings': 10**12},
          {'rms_norm_eps': float('nan')}, {'intermediate_size': 10**7}, {'num_attention_heads': 3},
          {'head_dim': 10**6}, {'rope_scaling': {'factor': 10**400, 'type': 'linear'}}, {'hidden_size': 2**19}]


@pytest.mark.parametrize('change', ABSURD, ids=lambda c: str(c)[:40])
def test_an_absurd_model_is_refused_before_anything_is_allocated(tmp_path, change):
    folder = tiny.folder(tmp_path / 'm')
    raw = json.loads((folder / 'config.json').read_text()) | change
    (folder / 'config.json').write_text(json.dumps(raw))
    began = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        hf.read(folder)
    said = str(caught.value)
    named = '*' if change == {'hidden_size': 2**19} else next(iter(change.get('rope_scaling', change)))
    assert said.startswith(f'{folder}/config.json: ') and '\n' not in said and len(said) < 400
    assert named in said or named == '*'
    assert time.monotonic() - began < 20


def test_a_deeply_nested_config_of_a_model(tmp_path):
    folder = tiny.folder(tmp_path / 'm')
    (folder / 'config.json').write_text('[' * 200_000)
    with pytest.raises(WeightsError, match='not readable as JSON'):
        hf.read(folder)


@pytest.mark.parametrize('value', [np.nan, -np.inf, 3.4e38])
def test_weights_that_are_not_finite_once_they_are_cast_are_named(tmp_path, value):
    folder = tiny.folder(tmp_path / 'm')
    tensors = tiny.safetensors.numpy.load_file(folder / 'model.safetensors')
    name = next(k for k in tensors if k.endswith('q_proj.weight'))
    tensors[name][0, 0] = value
    tiny.safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
    with pytest.raises(WeightsError, match=f'{name}.*not finite, or too large'):
        hf.load(folder)


def test_a_rank_beyond_the_layer():
    shapes = {('a', 'query'): ((2,), 16, 16), ('a', 'key'): ((2,), 16, 8)}
    lora.check_rank(8, shapes, 'lora.rank')
    with pytest.raises(ConfigError, match=r'lora.rank: 9, expected at most 8, the smaller side of a/key \(16 to 8\)'):
        lora.check_rank(9, shapes, 'lora.rank')


def test_tokens_that_were_added_and_have_no_row(tmp_path):
    folder = tiny.folder(tmp_path / 'm')
    path = folder / 'tokenizer.json'
    made = tiny.tokenizers.Tokenizer.from_file(str(path))
    made.add_special_tokens(['<new>'])
    made.save(str(path))
    texts, size = np.array([['abc'], ['de <new>']], object), len(tiny.CHARACTERS)
    found = tokens.load(folder)
    assert tokens.encode(found, texts, 16, 'end')[0]['tokens'].max() >= size
    with pytest.raises(DataError, match=rf"text of example 1: token '<new>' has id {size}, but .* has {size} rows"):
        tokens.encode(found, texts, 16, 'end', vocab_size=size)


def test_stored_tokens_of_a_model_with_more_of_them():
    """A smaller embedding under the same tokenizer, as in another cell of a grid: stored ids are looked at again."""
    found = {'tokens': np.full((3, 1, 4), len(tiny.CHARACTERS) - 1), 'length': np.full((3, 1), 4)}
    model = types.SimpleNamespace(name='small', vocab_size=len(tiny.CHARACTERS) - 1)
    with pytest.raises(DataError, match=r"small: a text has token id 65, but the model's embedding has 65 rows"):
        context.check_vocabulary(model, found)
    context.check_vocabulary(types.SimpleNamespace(name='large', vocab_size=66), found, {})


@pytest.mark.parametrize(('name', 'value'), [('tokens', -1), ('tokens', 99), ('legal_flat', -3), ('move', -2)])
def test_numbers_of_puzzles_out_of_range(tmp_path, name, value):
    arrays = {'tokens': np.zeros((2, 64), int), 'move': np.array([1, 2]), 'game': np.arange(2),
              'legal_flat': np.array([1, 2]), 'legal_count': np.ones(2, int)}
    arrays[name].ravel()[1] = value
    np.savez(tmp_path / 'p.npz', **arrays)
    with pytest.raises(DataError, match=rf'damaged, {name} holds numbers from .*, expected {name} below'):
        puzzles.read_puzzles(tmp_path / 'p.npz')


@pytest.mark.parametrize(('field', 'value'), [('positions_per_game', 9), ('max_bad_rows', .5)])
def test_settings_of_chess_that_would_do_nothing(cli, tmp_path, field, value):
    line = error(cli(f'--config={ROOT}/configs/chess.py', f'--workdir={tmp_path}', f'--config.task.{field}={value}'))
    assert line.startswith(f'task.{field}: {value}, but the built-in puzzles')


def test_more_rows_than_memory_holds(cli, tmp_path):
    line = error(cli(f'--config={ROOT}/configs/salient_concept.py', f'--workdir={tmp_path}',
                     '--config.task.train_size=1000000000'))
    assert line.startswith('task.train_size: 1000000000 and task.test_size: 8000, expected at most 4000000 together')


def test_what_is_not_finite_from_the_start_is_no_matter_of_the_learning_rate():
    history = History(np.array([[np.nan, 1.], [1., np.inf]], np.float32), np.zeros(0), np.zeros(0), np.zeros(0),
                      np.zeros(0))
    assert str(history.broken(0)).endswith('(before any update: inputs or weights are not finite)')
    assert str(history.broken(1)).endswith('(a smaller learning rate may help)')


def test_a_finished_folder_is_reported_once_more_only_if_it_is_whole(tmp_path, cli):
    assert cli(CONFIG, f'--workdir={tmp_path}', '--config.seeds=(0,)', '--config.task.train_size=80',
               '--config.task.test_size=40', '--config.train.batch_size=20', '--config.train.epochs=1')[0] == 0
    whole = json.loads((tmp_path / 'results.json').read_text())
    for change in ({'students': 3}, {'weak': []}, {'task': {'name': 3}}, {'timing': {'phases': [3]}},
                   {'versions': {'jax': 10**400}}, {'alarms': [None]}):
        (tmp_path / 'results.json').write_text(json.dumps(whole | change))
        with pytest.raises(StoreError, match=r'results\.json: damaged'):
            page.write(tmp_path)
    shutil.rmtree(tmp_path / 'store')
