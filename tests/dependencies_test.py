"""What is imported is declared, and what is declared is imported."""
import ast
import os
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
GUARDED = {'ray': 'ray', 'cloudpickle': 'ray', 'chess': 'chess', 'zstandard': 'chess', 's3fs': 's3'}  # module -> extra
OWN_WISH = {'wandb', 'trackio'}  # sinks that the user installs and names; they are imported by that name only
BENCHMARK = {'torch', 'tokenizers'}  # of experiments/benchmark: its other side
DISTRIBUTIONS = {'absl': 'absl-py', 'orbax': 'orbax-checkpoint', 'sklearn': 'scikit-learn',
                 'PIL': 'pillow'}  # module -> its package


@pytest.fixture(scope='module')
def declared():
    """(CORE, extra -> packages) of setup.py, by their normal names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('setuptools.setup', lambda **fields: None)
        found = runpy.run_path(str(ROOT / 'setup.py'))
    return names(found['CORE']), {extra: names(packages) for extra, packages in found['EXTRAS'].items()}


def names(requirements: list[str]) -> set[str]:
    return {normal(re.match(r'[\w.-]+', r)[0]) for r in requirements}


def normal(name: str) -> str:
    return re.sub(r'[-_.]+', '-', DISTRIBUTIONS.get(name, name)).lower()


def imported(folder: str) -> dict[str, str]:
    """Modules from outside -> a file that imports them."""
    ours = {'w2s_jax', 'experiments', 'configs', *sys.stdlib_module_names}
    out = {}
    for path in sorted((ROOT / folder).rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module]
            out |= {name.partition('.')[0]: str(path.relative_to(ROOT)) for name in found}
    return {module: path for module, path in out.items() if module not in ours}


def test_what_the_package_imports_is_declared(declared):
    core, extras = declared
    for module, path in imported('w2s_jax').items():
        there = extras[GUARDED[module]] if module in GUARDED else core
        assert normal(module) in there, f'{path} imports {module}, which setup.py does not declare'
        assert module not in OWN_WISH


def test_what_the_entry_points_import_is_declared(declared):
    core, extras = declared
    for module, path in imported('experiments').items():
        there = extras['benchmark'] if module in BENCHMARK else core
        assert normal(module) in there, f'{path} imports {module}, which setup.py does not declare'


def test_what_is_declared_is_imported(declared):
    core, extras = declared
    there = {normal(module) for module in imported('w2s_jax')}
    assert core - there == set()
    for extra in set(GUARDED.values()):
        used = {normal(m) for m, e in GUARDED.items() if e == extra}
        assert extras[extra] == used, extra


def test_every_declared_package_has_a_tested_version(declared):
    core, extras = declared
    pinned = names((ROOT / 'constraints.txt').read_text().replace('#', '').splitlines()[1:])
    wanted = core | extras['test'] | extras['chess'] | extras['ray'] | extras['s3']
    assert wanted - pinned == set()


def test_a_script_beside_a_folder_of_the_packages_name_finds_the_package(tmp_path):
    """As a script beside the clone is, of which git makes a folder of that name."""
    (tmp_path / 'w2s_jax').mkdir()
    (tmp_path / 'script.py').write_text('import w2s_jax; print(w2s_jax.run.__name__)')
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, 'script.py'], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=environment)
    assert done.stdout == 'run\n', done.stderr
