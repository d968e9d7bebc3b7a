"""Indexes that break one promise each, as real code has done; every one must be caught by its check."""

import time

import numpy as np

from index import Metric, Neighbours
from index.exact import ExactIndex
from tests.contract import index_checks as checks


class ReturnsSquares(ExactIndex):
    def search(self, queries, k, *, allowed=None, exact=False):
        found = super().search(queries, k, allowed=allowed)
        return Neighbours(found.ids, found.distances**2)


class HighestIdFirst(ExactIndex):
    def search(self, queries, k, *, allowed=None, exact=False):
        everything = super().search(queries, max(1, len(self)), allowed=allowed)
        order = np.lexsort((-everything.ids, everything.distances), axis=-1)[:, :k]
        return Neighbours(
            np.take_along_axis(everything.ids, order, 1), np.take_along_axis(everything.distances, order, 1)
        )


class ShortListWithoutMargin(ExactIndex):
    """Takes the k rows that a float32 product calls nearest."""

    def search(self, queries, k, *, allowed=None, exact=False):
        ids = self.ids()
        rows, asked = self._query_rows(self.vectors(ids)), self._query_rows(queries)
        rough = (asked**2).sum(1)[:, None] + (rows**2).sum(1)[None] - 2 * asked @ rows.T
        parts = [
            super(ShortListWithoutMargin, self).search(queries[q : q + 1], k, allowed=ids[np.argsort(rough[q])[:k]])
            for q in range(len(queries))
        ]
        return Neighbours(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("ids", "distances")))


class FollowsItsBatch(ExactIndex):
    def search(self, queries, k, *, allowed=None, exact=False):
        found = super().search(queries, k, allowed=allowed)
        return found if len(queries) < 20 else Neighbours(found.ids, np.nextafter(found.distances, np.inf))


class NormalisesInPlace(ExactIndex):
    def search(self, queries, k, *, allowed=None, exact=False):
        found = super().search(queries, k, allowed=allowed)
        queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
        return found


class KeepsTheCallersRows(ExactIndex):
    def add(self, ids, vectors):
        super().add(ids, vectors)
        self._kept = vectors

    def search(self, queries, k, *, allowed=None, exact=False):
        self._searched.values[:] = self._query_rows(self._kept)
        return super().search(queries, k, allowed=allowed)


class KeepsUnitRowsOnly(ExactIndex):
    def vectors(self, ids):
        rows = super().vectors(ids)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


class AddsUntilTheFirstError(ExactIndex):
    def add(self, ids, vectors):
        if len(ids) != len(vectors):
            super().add(ids, vectors)
        for number in range(len(ids)):
            super().add(np.asarray(ids)[number : number + 1], vectors[number : number + 1])


class AcceptsAnyK(ExactIndex):
    def search(self, queries, k, *, allowed=None, exact=False):
        return super().search(queries, max(1, int(k)), allowed=allowed)


class DoesNotPad(ExactIndex):
    def search(self, queries, k, *, allowed=None, exact=False):
        return super().search(queries, max(1, min(k, len(self))), allowed=allowed)


class FiltersAfterwards(ExactIndex):
    """Searches everything and strikes out what is not allowed: fewer than k come back."""

    def search(self, queries, k, *, allowed=None, exact=False):
        found = super().search(queries, k)
        if allowed is None:
            return found
        kept = np.isin(found.ids, allowed)
        return Neighbours(np.where(kept, found.ids, -1), np.where(kept, found.distances, np.float32(np.inf)))


class ForgetsToRemove(ExactIndex):
    """Counts the removed rows and goes on finding the last of them."""

    def remove(self, ids):
        wanted = np.unique(np.asarray(ids, dtype=np.int64))
        there = int(np.isin(wanted, self.ids()).sum())
        super().remove(wanted[:-1])
        return there


class IdsInOrderOfArrival(ExactIndex):
    def ids(self):
        return self._ids.values.copy()


class RestoresHalfPrecision(ExactIndex):
    def restore(self, arrays, facts):
        super().restore(arrays, facts)
        self._searched.values[:] = self._searched.values.astype(np.float16)


class SharesItsScratch(ExactIndex):
    """Keeps the queries on the object while it works."""

    def search(self, queries, k, *, allowed=None, exact=False):
        self._scratch = queries
        time.sleep(1e-4)
        return super().search(self._scratch, k, allowed=allowed)


class SquaresInFloat32(ExactIndex):
    """Measures lengths in float32, where the square of a short vector is nothing."""

    def _query_rows(self, queries):
        rows = super()._query_rows(queries)
        short = np.linalg.norm(np.asarray(queries, dtype=np.float32), axis=1) < 1e-18
        return np.where(short[:, None], np.float32(0), rows)


class ZeroIsHalfWay(ExactIndex):
    """Forgets that the formula for unit vectors does not hold for zero."""

    def search(self, queries, k, *, allowed=None, exact=False):
        found = super().search(queries, k, allowed=allowed)
        zero = ~np.asarray(queries).any(axis=1)
        found.distances[zero] = np.minimum(found.distances[zero], 0.5)
        return found


class MissesWhenAskedToBeExact(ExactIndex):
    """Leaves out the nearest whatever was asked for."""

    def search(self, queries, k, *, allowed=None, exact=False):
        found = super().search(queries, k + 1, allowed=allowed)
        return Neighbours(found.ids[:, 1:], found.distances[:, 1:])


class DrawsFromTheGlobalState(ExactIndex):
    def search(self, queries, k, *, allowed=None, exact=False):
        np.random.random()
        return super().search(queries, k, allowed=allowed)


BROKEN = (
    (ReturnsSquares, Metric.L2, checks.nearest_first_as_in_float64),
    (HighestIdFirst, Metric.L2, checks.equal_rows_by_lowest_id),
    (ShortListWithoutMargin, Metric.L2, checks.near_ties_in_their_true_order),
    (ShortListWithoutMargin, Metric.COSINE, checks.near_ties_in_their_true_order),
    (FollowsItsBatch, Metric.L2, checks.same_alone_and_in_any_batch),
    (NormalisesInPlace, Metric.COSINE, checks.callers_arrays_stay_the_callers),
    (KeepsTheCallersRows, Metric.L2, checks.callers_arrays_stay_the_callers),
    (KeepsUnitRowsOnly, Metric.COSINE, checks.vectors_come_back_as_added),
    (AddsUntilTheFirstError, Metric.L2, checks.refusals_change_nothing),
    (AcceptsAnyK, Metric.L2, checks.refusals_change_nothing),
    (DoesNotPad, Metric.L2, checks.short_answers_are_padded),
    (FiltersAfterwards, Metric.L2, checks.allowed_restricts),
    (ForgetsToRemove, Metric.L2, checks.removal_leaves_no_trace),
    (IdsInOrderOfArrival, Metric.L2, checks.ids_ascend),
    (RestoresHalfPrecision, Metric.L2, checks.snapshots_answer_the_same),
    (SharesItsScratch, Metric.L2, checks.threads_agree),
    (SquaresInFloat32, Metric.COSINE, checks.extreme_lengths_are_measured),
    (ZeroIsHalfWay, Metric.COSINE, checks.zero_is_at_one_from_everything),
    (MissesWhenAskedToBeExact, Metric.L2, checks.exact_answers_on_request),
    (DrawsFromTheGlobalState, Metric.L2, checks.global_randomness_is_untouched),
)
