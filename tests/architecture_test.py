"""Who may import whom, and where the one place of a thing is: read off the source, nothing is imported."""
import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MOST_LINES, MOST_ENTRIES = 400, 27

# Who -> what it imports nowhere, not even inside of a function. A name stands for a module or a folder of w2s_jax
# with all below it; `jax` and the like for a package. Methods may know configs: they read the experiment's.
RULES = {
    'losses objectives metrics labels diagnostics protocols': 'graph store engine config phases',
    'models': 'sampling tasks train phases',
    'sampling': 'tasks train phases methods labels graph engine config report',
    'tasks': 'jax train phases',
    'train': 'graph phases methods tasks config',
    'methods': 'jax train phases engine',
    'phases': 'methods engine report',
    'report': 'jax train engine',
    'evaluation': 'jax graph store engine config phases methods report',
    'graph': 'jax store engine config phases methods report train',
    'registry errors text paths': 'jax data graph store engine config phases methods report train models tasks labels',
}
# Who -> all of ours that it may import beside itself.
ONLY = {'store runtime': 'errors paths registry text',
        'protocols': 'errors registry metrics models.chess_moves',
        'theory': 'errors registry losses metrics protocols sampling.pick train.preference'}
# Package -> the one file or folder that imports it.
PLACES = {'jax._src': 'w2s_jax/runtime/multihost.py', 'ray': 'w2s_jax/engine/ray_executor.py',
          'chess': 'w2s_jax/tasks/chess/', 'torch': 'experiments/benchmark/'}

# What breaks a rule today, and why it may: (rule, file) -> reason. An entry that is not needed any more fails.
KNOWN = {
    ('method name', 'w2s_jax/config.py'): "the default of method.name has to be named somewhere, and configs are where",
    ('method name', 'w2s_jax/report/comparisons.py'): 'the plain method goes without saying in tables of the page; a '
                                                      'report reads files alone, which do not say which is plain',
    ('method name', 'w2s_jax/report/tables.py'): 'results.json of the first version name no method: theirs was naive',
}


def sources(*folders: str) -> list[pathlib.Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob('*.py'))


def named(path: pathlib.Path) -> str:
    """The path as it is shown."""
    return path.relative_to(ROOT).as_posix()


def module(path: pathlib.Path) -> str:
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: pathlib.Path) -> frozenset[str]:
    """All modules that a file imports, and `module.name` of the names that it takes out of them."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{named(path)}:{node.lineno}: a relative import, expected w2s_jax...'
            found |= {f'{node.module}.{alias.name}' for alias in node.names} | {str(node.module)}
    return frozenset(found)


def below(name: str, top: str) -> bool:
    return name == top or name.startswith(f'{top}.')


def full(name: str) -> str:
    """`train` as `w2s_jax.train`; packages as they are."""
    return name if name in ('jax', 'ray', 'torch', 'chess') else f'w2s_jax.{name}'


def broken(rule: str, found) -> None:
    """Fails for what is found and not known, and for what is known and not found."""
    known = {file for what, file in KNOWN if what == rule}
    files = {line.partition(':')[0] for line in found}
    news = [line for line in found if line.partition(':')[0] not in known]
    assert not news, '\n'.join(news)
    assert not known - files, f'{rule}: not broken any more, expected to be gone from KNOWN: {sorted(known - files)}'


@pytest.mark.parametrize('who', RULES)
def test_imports_that_never_exist(who):
    broken(who, [f'{named(path)}: imports {name}, which {one} does not'
                 for one in who.split() for path in sources('w2s_jax') if below(module(path), full(one))
                 for bad in RULES[who].split() for name in sorted(imports(path)) if below(name, full(bad))])


@pytest.mark.parametrize('who', ONLY)
def test_the_lowest_rooms_know_next_to_nothing_of_ours(who):
    allowed = [full(name) for name in ONLY[who].split()]
    broken(who, [f'{named(path)}: imports {name}, expected nothing of ours but {ONLY[who]}'
                 for one in who.split() for path in sources('w2s_jax') if below(module(path), full(one))
                 for name in sorted(imports(path)) if name.startswith('w2s_jax.')
                 and not any(below(name, good) for good in (*allowed, full(one)))])


def test_only_the_engine_knows_methods_phases_and_report_at_once():
    rooms: dict[str, set[str]] = {}
    for path in sources('w2s_jax'):
        room = (*module(path).split('.'), '')[1]
        rooms.setdefault(room, set()).update(imports(path))
    at_once = {room for room, names in rooms.items()
               if all(any(below(n, full(r)) for n in names) for r in ('methods', 'phases', 'report'))}
    assert at_once <= {'engine'}


@pytest.mark.parametrize('package', PLACES)
def test_a_package_has_one_place(package):
    users = [named(p) for p in sources('w2s_jax', 'experiments') if any(below(name, package) for name in imports(p))]
    assert users, f'{package}: nobody imports it, expected to be gone from PLACES'
    broken(package, [f'{name}: imports {package}, expected only in {PLACES[package]}'
                     for name in users if not name.startswith(PLACES[package])])


def test_nobody_imports_what_another_module_keeps_to_itself():
    found = []
    for path in sources('w2s_jax', 'experiments'):
        ours = {name for name in imports(path) if below(name, 'w2s_jax') or below(name, 'experiments')}
        found += [f'{named(path)}: imports {name}' for name in sorted(ours)
                  if any(part.startswith('_') and not part.startswith('__') for part in name.split('.'))]
        aliases = {alias.asname or alias.name for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)
                   and below(str(node.module), 'w2s_jax') for alias in node.names
                   if exists(f'{node.module}.{alias.name}')}
        found += [f'{named(path)}: reads {node.value.id}.{node.attr} in line {node.lineno}'
                  for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)
                  and isinstance(node.value, ast.Name) and node.value.id in aliases
                  and node.attr.startswith('_') and not node.attr.startswith('__')]
    broken('private', found)


def exists(name: str) -> bool:
    """Whether that is a module of ours."""
    path = ROOT.joinpath(*name.split('.'))
    return path.is_dir() or path.with_suffix('.py').is_file()


def test_a_method_is_named_in_methods_alone():
    methods = {node.args[0].value for path in sources('w2s_jax/methods') for node in ast.walk(tree(path))
               if isinstance(node, ast.Call) and ast.unparse(node.func) == 'METHODS.register'
               and isinstance(node.args[0], ast.Constant)}
    assert methods >= {'naive', 'bootstrap'}
    found = []
    for path in sources('w2s_jax'):
        if not named(path).startswith('w2s_jax/methods/'):
            found += [f'{named(path)}: names {node.value!r} in line {node.lineno}' for node in ast.walk(tree(path))
                      if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in methods]
            found += [f'{named(path)}: imports {name}' for name in imports(path)
                      if name in {f'w2s_jax.methods.{method}' for method in methods}]
    broken('method name', found)


def test_no_file_is_too_long():
    lines = {named(path): len(path.read_text().splitlines()) for path in sources('w2s_jax')}
    broken('lines', [f'{name}: {number} lines, expected fewer than {MOST_LINES}' for name, number in lines.items()
                     if number >= MOST_LINES])


def test_few_things_lie_at_the_top():
    """Files and folders, without what a package needs anyhow."""
    there = {p.name for p in (ROOT / 'w2s_jax').iterdir() if not p.name.startswith(('__', '.')) and p.name != 'assets'}
    assert len(there) <= MOST_ENTRIES, sorted(there)


def test_what_is_known_is_of_a_rule_and_has_a_reason():
    rules = {*RULES, *ONLY, *PLACES, 'private', 'method name', 'lines'}
    assert all(rule in rules and reason for (rule, _), reason in KNOWN.items())


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them by their names alone."""
    names = [path.name for path in (ROOT / 'tests').rglob('*.py')]
    assert sorted({name for name in names if names.count(name) > 1 and name != '__init__.py'}) == []
