"""TRANSFORMS that drop rows whose weak labels look wrong, or label them again; some ask the student's features.

A filter sees labels and features alone. It does not know which rows belong together (questions with several options),
so that it may drop a part of a group, and a probe may have learned a row's siblings.
"""
import numpy as np

from w2s_jax.labels.probes import FIT, neighbours, out_of_fold
from w2s_jax.labels.transforms import TRANSFORMS
from w2s_jax.registry import Setting, Settings

ACTION = Setting('drop', choices=('drop', 'relabel'), doc='what happens to rows')
PER_CLASS = Setting(False, doc='the share is of each class by itself, so that classes keep their shares')


@TRANSFORMS.register('confident', version=2, share=Setting(.5, 0, 1, '(]', traced=True, doc='of the rows, the surest'),
                     threshold=Setting(0., 0, 1, traced=True, doc="in the share's place: least probability; 0: off"),
                     per_class=PER_CLASS)
def confident(labels: np.ndarray, features, settings: Settings, rng):
    """Keeps the rows whose labels are surest, a share of them, of equal ones the first; or all from a threshold up."""
    surest = labels.max(-1)
    if settings.threshold:
        return labels, surest >= np.float32(settings.threshold)
    return labels, largest(surest, settings.share, labels.argmax(-1) if settings.per_class else None)


@TRANSFORMS.register('knn', features=True, k=Setting(50, 1, 10**6, traced=True, doc='neighbours, by cosine'),
                     agree=Setting(.5, 0, 1, traced=True, doc='drop: below this share of neighbours of its class'),
                     action=ACTION)
def knn(labels: np.ndarray, features, settings: Settings, rng):
    """Drops rows that few of their nearest neighbours agree with, or gives all rows their neighbours' mean label."""
    graph = neighbours(features, settings.k)
    if settings.action == 'relabel':  # Bahri et al. 2020, arXiv 2004.12289; EleutherAI/w2s has k 50
        return normalised(graph @ labels), None
    answers = labels.argmax(-1)
    agreeing = (graph @ np.eye(labels.shape[1])[answers])[np.arange(len(labels)), answers]
    return labels, agreeing >= settings.agree * settings.k


@TRANSFORMS.register('probe', features=True, **FIT, action=ACTION)
def probe(labels: np.ndarray, features, settings: Settings, rng):
    """Drops rows whose label is not what a cross-fitted logistic probe answers, or gives all rows its probabilities."""
    found = out_of_fold(labels, features, settings, rng)  # the probe of EleutherAI/w2s; here no row answers for itself
    if settings.action == 'relabel':
        return normalised(found), None
    return labels, found.argmax(-1) == labels.argmax(-1)


@TRANSFORMS.register('small_loss', features=True, share=Setting(.8, 0, 1, '(]', traced=True, doc='of the rows, kept'),
                     **FIT, per_class=PER_CLASS)
def small_loss(labels: np.ndarray, features, settings: Settings, rng):
    """Keeps the rows whose weak labels have the smallest cross-entropy under a cross-fitted logistic probe."""
    logs = np.log(np.maximum(out_of_fold(labels, features, settings, rng), 1e-30))
    classes = labels.argmax(-1) if settings.per_class else None
    return labels, largest((labels * logs).sum(-1), settings.share, classes)  # Han et al. 2018, arXiv 1804.06872


@TRANSFORMS.register('components', features=True, k=Setting(5, 1, 10**6, traced=True, doc='neighbours, by cosine'),
                     edges=Setting('mutual', choices=('mutual', 'either'), doc='who has to be a neighbour of whom'))
def components(labels: np.ndarray, features, settings: Settings, rng):
    """Keeps of each class the largest connected component of the graph of nearest neighbours (TopoCC)."""
    from scipy.sparse import csgraph  # Wu et al. 2020, arXiv 2012.04835
    graph, answers = neighbours(features, settings.k), labels.argmax(-1)
    links = (graph.minimum if settings.edges == 'mutual' else graph.maximum)(graph.T).tocsr()
    keep = np.zeros(len(labels), bool)
    for one in np.unique(answers):
        rows = np.flatnonzero(answers == one)
        _, part = csgraph.connected_components(links[rows][:, rows], directed=False)
        keep[rows[part == np.bincount(part).argmax()]] = True
    return labels, keep


def largest(scores: np.ndarray, share: float, classes: np.ndarray | None) -> np.ndarray:
    """`[n]` bool: the share of rows of the largest scores, at least one, of equal ones the first; with classes `[n]`
    such a share of each."""
    keep = np.zeros(len(scores), bool)
    classes = np.zeros(len(scores), int) if classes is None else classes
    for one in np.unique(classes):
        rows = np.flatnonzero(classes == one)
        keep[rows[np.argsort(-scores[rows], kind='stable')[:max(1, round(share * len(rows)))]]] = True
    return keep


def normalised(labels: np.ndarray) -> np.ndarray:
    """Rows `[n, K]` that sum to 1, float32."""
    return (labels / labels.sum(-1, keepdims=True)).astype(np.float32)
