"""Does the surface of a text give its label away? A warning for tasks that can be solved without reading.

Two checks with linear models, cross-validated with whole groups left out. *Surface*: lengths, shares of characters,
first and last character, how the last field looks and how long it is: what a template may leak. (A formatter that
shows the letter of a right answer but the text of a wrong one is found here.) *Words*: a bag of words that separates
the classes perfectly. Both are measured on rows of the pool and the test set together, and nothing trains on them.
"""
import re
import warnings

import numpy as np
import threadpoolctl
from sklearn import linear_model, metrics, model_selection, pipeline, preprocessing
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

ROWS = 4000
FEWEST = 32  # rows in all, and a sixth of it in each class: below, no check
FOLDS = 3
SURFACE = 0.8  # AUROC from which the surface leaks; ours: AG News .67, IMDb .62, others .49 to .55
PERFECT = 0.995  # AUROC of the bag of words from which the classes are perfectly separable
WIDER = 1.5  # the band of chance against one test set's: measured over 60 labellings at random, as folds share rows
LONGEST = 3000  # characters of a text that are looked at, from its end (the last field) and its start

_LAST_FIELD = re.compile(r'(?:^|[\s])[A-Z][\w ]{0,20}:\s')
_OPTION = re.compile(r'\(?(?:[A-Za-z]|\d{1,2})[).]?')
_KINDS = ('upper-case', 'lower-case', 'digit', 'space', 'punctuation', 'other')
_ENDS = ('letter', 'digit', '.', '?', '!', ')', 'other')
NAMES = ('characters', 'words', 'length of a word', *(f'share of {k} characters' for k in _KINDS), 'lines', 'colons',
         'question marks', 'exclamation marks', 'quotation marks', *(f'starts with {k}' for k in _KINDS),
         *(f'ends with {e}' for e in _ENDS), 'length of the last word', 'characters of the last field',
         'words of the last field', 'the last field against the rest', 'the last field is a letter or a number',
         'the last field starts with a capital')


def _kind_table() -> np.ndarray:
    kinds = np.full(256, 5, np.uint8)
    for code in range(128):
        c = chr(code)
        kinds[code] = (0 if c.isupper() else 1 if c.islower() else 2 if c.isdigit() else 3 if c.isspace()
                       else 4 if c.isprintable() else 5)
    return kinds


_KIND = _kind_table()


def surface(text: str) -> list[float]:
    """The features of one text, in the order of `NAMES`: nothing of what it says, only how it looks."""
    text = text.strip()
    words = text.split()
    kinds = _KIND[np.frombuffer(text.encode('latin-1', 'replace'), np.uint8)]
    shares = np.bincount(kinds, minlength=len(_KINDS))[:len(_KINDS)] / max(len(text), 1)
    last = _LAST_FIELD.split(text)[-1].strip()
    rest = max(len(text) - len(last), 1)
    end = 'letter' if text[-1:].isalpha() else 'digit' if text[-1:].isdigit() else text[-1:]
    end = end if end in _ENDS else 'other'
    first = int(kinds[0]) if len(kinds) else 5
    return [np.log1p(len(text)), np.log1p(len(words)), len(text) / max(len(words), 1), *shares,
            np.log1p(text.count('\n')), np.log1p(text.count(':')), np.log1p(text.count('?')),
            np.log1p(text.count('!')), np.log1p(text.count('"')), *(first == i for i in range(len(_KINDS))),
            *(end == e for e in _ENDS), np.log1p(len(words[-1]) if words else 0), np.log1p(len(last)),
            np.log1p(len(last.split())), np.log1p(len(last) / rest),
            bool(_OPTION.fullmatch(last)), last[:1].isupper()]


def check(texts: np.ndarray, truth: np.ndarray, group: np.ndarray, seed: int = 0) -> dict:
    """How well linear models that cannot read tell the classes apart.

    Args:
      texts: `[N]` or `[N, S]` str; of a pair the difference of the two texts' features counts.  truth: `[N]` in
        [0, K).  group: `[N]`, rows that must not be in training and test fold at once.  seed: of the rows (at most
        4000) and the folds.
    Returns: `rows`, `surface_auroc` and `words_auroc` (one class against the rest, mean over classes; None where
    there are too few rows), `chance` (the band of 95 % around .5), `strongest` (the surface features that weigh
    most) and the two `threshold`s.
    """
    texts, truth, group = _sample(np.asarray(texts, object), np.asarray(truth), np.asarray(group), seed)
    counts = np.unique(truth, return_counts=True)[1]
    result: dict = {'rows': len(truth), 'surface_auroc': None, 'words_auroc': None, 'chance': None, 'strongest': [],
              'threshold': {'surface': SURFACE, 'words': PERFECT}}
    if len(truth) < FEWEST or len(counts) < 2 or counts.min() < FEWEST // 6 or len(np.unique(group)) < 2 * FOLDS:
        return result
    truth = np.unique(truth, return_inverse=True)[1]
    folds = list(model_selection.StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(
        truth, truth, group))
    if any(len(np.unique(truth[part])) < len(counts) for fold in folds for part in fold):
        return result
    looks = _of_pairs(lambda column: np.array([surface(t) for t in column], float), texts)
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=200))
    bag = linear_model.RidgeClassifier(alpha=1.0, solver='sparse_cg')
    with threadpoolctl.threadpool_limits(1):  # small problems: more threads only wait for each other
        found = {'surface_auroc': _auroc(model, looks, truth, folds),
                 'words_auroc': _auroc(bag, _of_pairs(_words, texts), truth, folds),
                 'strongest': _strongest(model.fit(looks, truth))}
    half = WIDER * 1.96 * np.mean([np.sqrt((len(truth) + 1) / (12 * n * (len(truth) - n))) for n in counts])
    return result | found | {'chance': [round(float(0.5 - half), 4), round(float(0.5 + half), 4)]}


def warning(result: dict) -> str | None:
    """One line where a label leaks, None where it does not seem to."""
    looks, words = result['surface_auroc'], result['words_auroc']
    if looks is not None and looks >= max(SURFACE, result['chance'][1]):
        return (f'the label can be told from the surface of the text (AUROC {looks:.3f} from lengths and characters '
                f'alone, chance {result["chance"][0]:.2f} to {result["chance"][1]:.2f}; mostly '
                f'{", ".join(result["strongest"])}): the template or the data may leak it')
    if words is not None and words >= PERFECT:
        return (f'a bag of words separates the classes perfectly (AUROC {words:.4f}): the data may hold their own '
                'labels, and a gap between models would mean little')
    return None


def unchecked(result: dict) -> str | None:
    """Why there was no check, in one line; None where there was one."""
    if result['surface_auroc'] is not None:
        return None
    return (f'too few rows ({result["rows"]}) to check whether texts give their labels away, expected {FEWEST} with '
            f'{FEWEST // 6} of each class, in {2 * FOLDS} groups or more')


def rows(n: int, seed: int) -> np.ndarray:
    """Which of n rows are looked at, in their order: all of them up to ROWS."""
    return np.arange(n) if n <= ROWS else np.sort(np.random.default_rng((seed, 3)).choice(n, ROWS, replace=False))


def _sample(texts, truth, group, seed: int):
    index = rows(len(truth), seed)
    texts, truth, group = texts[index], truth[index], group[index]
    texts = texts[:, None] if texts.ndim == 1 else texts
    return np.vectorize(_ends, otypes=[object])(texts) if len(texts) else texts, truth, group


def _ends(text: str) -> str:
    return text if len(text) <= LONGEST else f'{text[:LONGEST // 2]} {text[-LONGEST // 2:]}'


def _of_pairs(features, texts: np.ndarray):
    """Features of a text `[N, F]`; of a pair the second's less the first's, as truth 1 is the second."""
    columns = [features(texts[:, i]) for i in range(texts.shape[1])]
    return columns[0] if len(columns) == 1 else columns[1] - columns[0]


def _words(column: np.ndarray):
    counted = HashingVectorizer(n_features=2**16, alternate_sign=False, norm=None,
                                token_pattern=r'\w+|[^\w\s]').transform(column)
    return TfidfTransformer(use_idf=False, sublinear_tf=True).fit_transform(counted)


def _auroc(model, features, truth: np.ndarray, folds) -> float:
    """The mean AUROC of rows in folds that the model has not seen, each class against the rest."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        for seen, unseen in folds:
            score = model.fit(features[seen], truth[seen]).decision_function(features[unseen])
            found.append(_one_against_rest(truth[unseen], score))
    return round(float(np.mean(found)), 4)


def _one_against_rest(truth: np.ndarray, score: np.ndarray) -> float:
    if score.ndim == 1:
        return metrics.roc_auc_score(truth, score)
    return float(np.mean([metrics.roc_auc_score(truth == k, score[:, k]) for k in range(score.shape[1])]))


def _strongest(model) -> list[str]:
    weight = np.abs(model[-1].coef_).max(0)
    return [NAMES[i] for i in np.argsort(-weight)[:3]]
