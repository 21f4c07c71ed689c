"""Language models on language tasks, from a folder and a file to results."""
import io
import json

import jax
import numpy as np
import pytest
import tiny
from commands import error
from words import own, sentences

from configs import own_data, reward
from w2s_jax import config as configs
from w2s_jax.data import Dataset, Examples
from w2s_jax.engine import experiment
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.models import language, tokens, zoo
from w2s_jax.phases import context as phases

OWN = '--config=configs/own_data.py'


def texts(*rows):
    return np.array([[row] if isinstance(row, str) else row for row in rows], object)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return tiny.folder(tmp_path_factory.mktemp('models') / 'tiny')


def bound(folder, rows, mode='full', **lora):
    section = own_data.get_config().student
    section.model, section.mode = str(folder), mode
    examples = Examples({'text': rows}, np.zeros(len(rows), np.int32), np.arange(len(rows)))
    return zoo.get(section, 'student', Dataset('texts', 2, examples, examples))


def encoded(folder, rows, **changes):
    found, _ = tokens.encode(tokens.load(folder), rows, **dict(max_length=100, truncate='end') | changes)
    return found


def moved(params):
    return jax.tree.map(lambda x: x + .3 * jax.random.normal(jax.random.key(x.size), x.shape), params)


def test_tokens_are_padded_at_the_right_and_counted(model):
    found = encoded(model, texts('abc', 'b', 'ca'))
    assert found['tokens'].tolist() == [[[0, 1, 2]], [[1, 0, 0]], [[2, 0, 0]]]
    assert found['length'].tolist() == [[3], [1], [2]]


@pytest.mark.parametrize(('truncate', 'kept'), [('end', 'Xbcd'), ('start', 'Xefg')])
def test_a_text_that_is_too_long_keeps_its_special_tokens(tmp_path, truncate, kept):
    tiny.tokenizer(tmp_path, start='X')
    found, counts = tokens.encode(tokens.load(tmp_path), texts('bcdefg', 'b', 'bcd'), 4, truncate)
    assert [''.join(tiny.CHARACTERS[t] for t in row[0][:n[0]]) for row, n in zip(*found.values(), strict=True)] == [
        kept, 'Xb', 'Xbcd']
    assert counts == {'texts': 3, 'truncated': 1, 'tokens': 10, 'longest': 4}


def test_a_text_without_tokens_is_named(model):
    with pytest.raises(DataError, match="text of example 1 has no tokens: ''"):
        encoded(model, texts('abc', ''))


@pytest.mark.long
def test_a_token_with_the_id_of_padding_does_not_move_the_read_out(model):
    """'a' is token 0 here: as the last letter and inside a text it counts like any other."""
    bound_model = bound(model, texts('a'))
    params = moved(bound_model.init(jax.random.key(0), bound_model.load(None)))
    rows = texts('bcda', 'bcd', 'baacad')
    together = bound_model.apply(params, encoded(model, rows))
    alone = np.concatenate([bound_model.apply(params, encoded(model, rows[i:i + 1])) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3  # the last letter of 'bcda' was read


@pytest.mark.long
def test_a_pair_has_two_rewards_that_do_not_see_each_other(model):
    pair = bound(model, texts(('b', 'c')))
    params = moved(pair.init(jax.random.key(0), pair.load(None)))
    rewards = pair.apply(params, encoded(model, texts(('bcd', 'efghi'), ('bcd', 'k'), ('efghi', 'bcd'))))
    assert rewards.shape == (3, 2)
    np.testing.assert_allclose(rewards[0, 0], rewards[1, 0], atol=1e-5)
    np.testing.assert_allclose(rewards[0], rewards[2, ::-1], atol=1e-5)
    assert abs(rewards[0, 0] - rewards[0, 1]) > 1e-3


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'words.jsonl'
    path.write_text('\n'.join(map(json.dumps, sentences())))
    return path


def kinds(folder):
    return [p.parent.name.split('-')[0] for p in folder.glob('store/*/DONE')]


def fitted(folder, *path):
    """The artifacts of a model that results.json names."""
    found = json.loads((folder / 'results.json').read_text())
    for key in path:
        found = found[key]
    return [folder / 'store' / f'fit-{identity}' for identity in found['ids']]


@pytest.fixture(scope='module')
def finished(model, file, tmp_path_factory):
    folder = tmp_path_factory.mktemp('own')
    c = own(model, file, **{'teacher.mode': 'probe', 'teacher.learning_rate': .1, 'train.epochs': 6,
                            'teacher.stopping.name': ''})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, 'COMPILATION', 0)  # as if there were so much work that padding is what costs
        return experiment.run(c, folder, io.StringIO()), folder


@pytest.mark.long
def test_one_tokenisation_serves_both_models(finished):
    results, folder = finished
    assert kinds(folder).count('tokens') == 2 and kinds(folder).count('features') == 2  # the pool's and the test set's
    assert [t['of'] for t in results['task']['tokens']] == ['tokens of the pool', 'tokens of the test set']
    assert all(t['truncated'] == 0 for t in results['task']['tokens'])
    assert results['weak']['model'] == results['ceiling']['model'] == 'tiny'
    assert results['weak']['accuracy']['mean'] > .9  # 'z' is the last letter, and the probe reads there


@pytest.mark.long
def test_features_serve_every_seed(model, file, tmp_path):
    """Another seed trains its own heads, on what was computed for the first."""
    c = own(model, file, **{'teacher.mode': 'probe', 'student.mode': 'probe', 'seeds': (0,)})
    experiment.run(c, tmp_path, io.StringIO())
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob('store/features-*/*')}
    c.seeds = (0, 1)
    (tmp_path / 'config.json').write_text(json.dumps(configs.flat(c)))
    experiment.run(c, tmp_path, io.StringIO())
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob('store/features-*/*')} == before
    assert len({p for p in fitted(tmp_path, 'weak') if (p / 'DONE').exists()}) == 2


@pytest.mark.long
def test_few_programs_are_compiled(finished):
    results, folder = finished
    for path in fitted(folder, 'students', 0) + fitted(folder, 'students', 1):
        assert 1 <= len(json.loads((path / 'metrics.json').read_text())['shapes']) <= 2
    programs = {p['name']: p['programs'] for p in results['timing']['phases'] if 'programs' in p}
    assert programs['ceiling'] == 2  # two lengths ...
    assert programs['student xent'] == 0  # ... and the student's program is the ceiling's


@pytest.mark.long
def test_little_work_is_not_worth_a_second_program(model, file, tmp_path):
    results = experiment.run(own(model, file, **{'teacher.mode': 'probe'}), tmp_path, io.StringIO())
    assert next(p['programs'] for p in results['timing']['phases'] if p['name'] == 'ceiling') == 1


@pytest.mark.long
def test_truncated_texts_are_counted(model, file, tmp_path):
    results = experiment.run(own(model, file, **{'task.max_length': 8, 'teacher.mode': 'probe',
                                                 'student.mode': 'probe'}), tmp_path, io.StringIO())
    counts = results['task']['tokens'][0]
    assert 0 < counts['truncated'] <= counts['texts'] and counts['longest'] == 8


@pytest.mark.long
def test_preferences_train_rewards(model, tmp_path):
    path = tmp_path / 'pairs.jsonl'
    rows = list(sentences())
    path.write_text('\n'.join(json.dumps({'prompt': f'say {i}', 'chosen': rows[i + 1]['text'],
                                          'rejected': rows[i]['text']}) for i in range(0, 240, 2)))
    c = reward.get_config('preference')
    c.task.path, c.task.prompt, c.task.chosen, c.task.rejected = str(path), 'prompt', 'chosen', 'rejected'
    c.teacher.model = c.student.model = str(model)
    c.teacher.mode, c.student.mode, c.optimizer.learning_rate = 'probe', 'probe', .03
    c.seeds, c.train.epochs, c.train.batch_size, c.report.html = (0,), 8, 16, False
    results = experiment.run(c, tmp_path / 'w', io.StringIO())
    assert results['task']['classes'] == 2 and results['weak']['accuracy']['mean'] > .9
    assert results['ceiling']['accuracy']['mean'] > .8


# Bad input


def args(model, file, folder):
    return (OWN, f'--workdir={folder / "w"}', f'--config.task.path={file}', '--config.task.text=text',
            '--config.task.label=label', f'--config.teacher.model={model}', f'--config.student.model={model}')


def damaged(tmp_path, change):
    path = tiny.folder(tmp_path / 'damaged')
    change(path)
    return path


def cut(path):
    content = (path / 'model.safetensors').read_bytes()
    (path / 'model.safetensors').write_bytes(content[:-100])


def rewrite(**changes):
    def change(path):
        config = json.loads((path / 'config.json').read_text()) | changes
        (path / 'config.json').write_text(json.dumps(config))
    return change


@pytest.mark.parametrize(('change', 'message'), [
    (lambda p: (p / 'tokenizer.json').unlink(), 'no tokenizer, expected one of tokenizer.json'),
    (lambda p: (p / 'tokenizer.json').write_text('{'), 'unreadable tokenizer'),
    (lambda p: (p / 'config.json').unlink(), 'config.json'),
    (cut, 'model.safetensors'),
    (rewrite(num_hidden_layers=3), 'missing tensor'),
    (rewrite(num_hidden_layers=1), 'unexpected tensor'),
    (rewrite(intermediate_size=21), 'has shape'),
    (rewrite(architectures=['MambaModel'], model_type='mamba'), 'llama'),
    (lambda p: (p / 'model.safetensors').rename(p / 'pytorch_model.bin'), 'only pickled weights'),
])
def test_a_model_folder_that_cannot_be_used(cli, tmp_path, file, change, message):
    path = damaged(tmp_path, change)
    line = error(cli(*args(path, file, tmp_path)))
    assert line.startswith(str(path)) and message in line


@pytest.mark.parametrize(('change', 'message'), [
    ('--config.task.text=txet', 'txet'), ('--config.task.path=nowhere.csv', 'nowhere.csv'),
    ('--config.student.model=nowhere', "student.model: unknown 'nowhere'"),
    ('--config.student.model=./no/where', 'student.model: ./no/where: no such folder'),
    ('--config.student.model=chess-xs', "student.model: 'chess-xs' does not fit task 'files'"),
    ('--config.student.lora.targets=nothing', "student.lora.targets: 'nothing' matches none of"),
    ('--config.student.lora.rank=0', 'student.lora.rank: 0'),
])
def test_a_field_that_cannot_be_used(cli, tmp_path, model, file, change, message):
    assert message in error(cli(*args(model, file, tmp_path), change))


def test_a_hub_id_while_offline(cli, tmp_path, model, file, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path / 'cache'))
    line = error(cli(*args(model, file, tmp_path), '--config.student.model=nobody/nothing'))
    assert line == ("student.model: 'nobody/nothing' is not a folder and cannot be had from the hub "
                    '(offline, and not in the cache)')


def test_a_hub_id_in_the_cache_while_offline(tmp_path, monkeypatch):
    import huggingface_hub
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    repository, commit = tmp_path / 'models--someone--tiny', '0123456789abcdef0123456789abcdef01234567'
    tiny.folder(repository / 'snapshots' / commit)
    (repository / 'refs').mkdir()
    (repository / 'refs' / 'main').write_text(commit)
    found = bound('someone/tiny', texts('abc'))
    assert found.name == 'someone/tiny'  # not the snapshot's hash
    assert language.find('someone/tiny', 'student.model').name == commit


def test_a_revision_of_a_hub_id(tmp_path, monkeypatch):
    """An earlier checkpoint is another branch, tag or commit of a repository, and another model to every id."""
    import huggingface_hub
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    repository = tmp_path / 'models--someone--tiny'
    (repository / 'refs').mkdir(parents=True)
    for seed, (name, commit) in enumerate({'main': '0' * 40, 'step100': '1' * 40}.items()):
        tiny.folder(repository / 'snapshots' / commit, seed=seed)
        (repository / 'refs' / name).write_text(commit)
    late, early = bound('someone/tiny', texts('abc')), bound('someone/tiny@step100', texts('abc'))
    assert (late.name, early.name) == ('someone/tiny', 'someone/tiny@step100')
    assert late.identity != early.identity
    assert language.find('someone/tiny@step100', 'teacher.model').name == '1' * 40
    with pytest.raises(ConfigError, match=r"^teacher.model: 'someone/tiny@step7' is not a folder and cannot be had"):
        language.find('someone/tiny@step7', 'teacher.model')


def test_a_language_model_does_not_play_chess(cli, tmp_path, model):
    line = error(cli('--config=configs/chess.py', f'--workdir={tmp_path}', f'--config.student.model={model}',
                     '--config.task.train_size=100', '--config.task.test_size=20'))
    assert line.startswith('student.model: ') and "task 'chess' has no texts" in line
