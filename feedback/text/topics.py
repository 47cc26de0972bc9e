"""Cluster prompts by topic, without a model: groups that share telling words, each named by its own.

Words are weighted by how telling they are (tf-idf), prompts grouped by k-means, both sides together, so that what only
one side asks about gets a topic of its own. Nothing is downloaded and the same prompts give the same topics.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

ROWS_A_TOPIC = 25
"""Prompts on the smaller side for each topic: the PSI of k groups that never moved is about (k - 1)(1/n + 1/m)."""
MOST = 10
"""Most topics."""
_WORD = re.compile(r"[^\W\d_]{3,}")


def topics(current: Sequence[str], reference: Sequence[str]) -> tuple[list[str], list[str]]:
    """Name the topic of each prompt on both sides by its three most telling words; `none` for prompts without any."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [*current, *reference]
    count = max(2, min(MOST, min(len(current), len(reference)) // ROWS_A_TOPIC))
    # Words in more than half of all prompts are the language's or the form's, not a topic's; single ones nobody's.
    vectorizer = TfidfVectorizer(max_df=0.5, min_df=2, max_features=5_000, tokenizer=_WORD.findall, token_pattern=None)
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError:  # no word is left
        return ["none"] * len(current), ["none"] * len(reference)
    telling = weights.getnnz(axis=1) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different prompts than topics: some stay empty
        groups = KMeans(n_clusters=min(count, int(telling.sum())), n_init=3, random_state=0).fit(weights[telling])
    words = vectorizer.get_feature_names_out()
    names = [" ".join(words[place] for place in (-centre).argsort()[:3]) for centre in groups.cluster_centers_]
    labels = iter(groups.labels_)
    named = [names[next(labels)] if has_telling else "none" for has_telling in telling]
    return named[: len(current)], named[len(current) :]
