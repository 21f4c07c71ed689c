"""TASKS: name -> `load(task, log) -> Dataset`, task being the config's section with the settings declared here."""
from typing import Any

from w2s_jax.registry import Registry, Setting
from w2s_jax.tasks import difficulty, digits, domains, features, harmless, images, preference, synthetic
from w2s_jax.tasks.chess import choices, puzzles
from w2s_jax.tasks.text import files, nlp

TASKS = Registry('task')

FILES: dict[str, Any] = {
    'path': Setting('', doc="a file or folder; '' for what is built in, or for the hub"),
    'test_path': Setting('', doc="'' cuts the test set from the same rows"),
    'max_bad_rows': Setting(puzzles.BAD_ROWS, 0, 1, '[)', doc='the share of unusable rows that is tolerated'),
}
TEXTS: dict[str, Any] = {
    **FILES,
    'max_length': Setting(512, 4, 10**6, doc="tokens of a text, at most the model's own limit"),
    'truncate': Setting('', choices=('', 'end', 'start'), doc="which end a longer text loses; '' as the task has it"),
    'shifted': Setting((), doc="further test sets, from elsewhere: 'NAME=PATH', files in this task's form; rows that "
                               'the pool or the test set has are left out'),
}
TEMPLATE: dict[str, Any] = {'template': Setting('', doc="text with {column} in it; '' for the task's own")}
PAIRS: dict[str, Any] = {
    name: Setting('', doc=f"column, '' for {name!r}") for name in ('prompt', 'chosen', 'rejected')}
GROUP: dict[str, Any] = {'group': Setting('', doc='column that related rows share: they stay in one half')}
COLUMNS: dict[str, Any] = {
    'text': Setting('', several=True, doc='column of texts, or several a,b, joined by blank lines'),
    'label': Setting('', doc='column of classes, of probabilities of class 1, or of lists of K probabilities'),
    'weak': Setting('', several=True, doc='column of weak labels, as label, for labels.source=column; several a,b of '
                                          'as many teachers (method.name=ensemble)'),
    'classes': Setting('', several=True, doc="names in order, separated by commas; '' as they occur"),
    'balance': Setting(False, doc='whether rows of larger classes are left out until all are of one size'),
    'question': Setting('', doc='column of questions'),
    'options': Setting('', several=True, doc='column of lists of answers, or several columns a,b,c'),
    'answer': Setting('', doc="column of right answers: a place, a letter, an option's text, or beside wrong options "
                              'the right answer itself'),
    **{name: Setting('', doc=f'column, of preference pairs{more}') for name, more in (
        ('chosen', ''), ('rejected', ''), ('prompt', "; '': 'prompt' if there is one"))}}


def _questions(number: int) -> Setting:
    return Setting(number, 0, doc='of multiple choice: so many questions of the test set are measured with all options '
                                  'together, too (question_accuracy); 0: none')


CHESS: dict[str, Any] = {
    'min_rating': Setting(0, 0, doc='of puzzles; 0: no limit'),
    'max_rating': Setting(0, 0, doc='of puzzles; 0: no limit'),
    'positions_per_game': Setting(puzzles.POSITIONS, 1, doc='of games')}
TASKS.register('chess', **FILES, **CHESS, **difficulty.SETTINGS,
               difficulty=Setting('', choices=('', 'rating', 'legal_moves'), doc='of puzzles, for easy to hard: '
                                  "their rating, or how many moves are legal; '': not cut"))(puzzles.load)
TASKS.register('chess_choice', **FILES, **CHESS)(choices.load)
TASKS.register('salient_concept', shift=Setting(0., 0, 3, doc='adds a test set `shifted`: the visible feature that '
                                                'makes the supervisor err is so much larger'),
               turn=Setting(0, 0, 60, doc='features that the concept is spread over by a rotation'))(synthetic.load)
TASKS.register('files', **TEXTS, **TEMPLATE, **COLUMNS, **GROUP, questions=_questions(files.QUESTIONS),
               difficulty=Setting('', doc="column of numbers, for easy to hard; '': not cut"),
               **difficulty.SETTINGS)(files.load)
TASKS.register('features', path=Setting('', doc='a .npz or .parquet file, or a folder of .npy files'),
               test_path=FILES['test_path'], strong=Setting('strong', doc='array [N, D] that the student reads'),
               weak=Setting('weak', doc="array [N, W] that the teacher reads; '': none"),
               label=Setting('label', doc='array of classes'),
               given=Setting('', doc='array of weak labels, for labels.source=column: classes, [N, K], '
                                       'or [N, T, K] of T teachers (method.name=ensemble)'),
               group=Setting('', doc='array that related rows share: they stay in one half'))(features.load)
TASKS.register('images', path=Setting('', doc='a .parquet file, a folder of them (train, test), or a .npz file'),
               test_path=FILES['test_path'],
               image=Setting('', doc="column of encoded images, or array [N, H, W, 3]; '': "
                             f"{' or '.join(images.COLUMNS)}"),
               label=Setting('label', doc='column or array of classes'),
               size=Setting(0, 0, 4096, doc='the side in pixels that images are resized and cut to; 0: as they are'),
               )(images.load)
CHAT: dict[str, Any] = {'chat': Setting(False, doc="whether conversations are written in the model's chat template")}
TASKS.register('preference', **TEXTS, **TEMPLATE, **PAIRS, **GROUP, **CHAT)(preference.load)
TASKS.register('anthropic_hh', **TEXTS, **CHAT)(preference.load_hh)
TASKS.register('linear_features', width=Setting(20, 2, 10**4, doc='features, which all count alike'))(synthetic.linear)
TASKS.register('harmless_helpful', correlation=Setting(-.6, -1, 1, doc='of how harmless and how helpful an answer is'),
               visible=Setting(True, doc='whether features show the part of helpful that is not harmless')
               )(harmless.load)
TASKS.register('digits')(digits.load)
TASKS.register('spurious_domains',
               attenuation=Setting(.05, 0, 1, doc="how far the student's features tell the spurious sign"),
               correlation=Setting(-.5, -1, 1, doc="of sign and truth where students learn and are tested")
               )(domains.load)
for _name, _spec in nlp.SPECS.items():
    _more: dict[str, Any] = {'questions': _questions(0)} if _spec.choices else {}
    TASKS.register(_name, **TEXTS, **TEMPLATE, **_more)(nlp.load)
