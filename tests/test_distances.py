"""Nearest neighbours: the same as independent implementations find, to the last digits."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from ganrun.metrics import distances
from ganrun.metrics.distances import nearest


def sets(n: int, m: int, features: int, *, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, features, generator=rng) + offset, torch.randn(m, features, generator=rng) + offset


@pytest.mark.parametrize(("n", "m", "features", "k"), [(1, 1, 1, 1), (7, 30, 3, 30), (1500, 9000, 16, 5)])
def test_as_sklearn(n, m, features, k):
    queries, points = sets(n, m, features)
    found, indices = nearest(queries, points, k)
    assert found.shape == indices.shape == (n, k) and found.dtype == torch.float32 and indices.dtype == torch.int64
    sklearn = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(points.double().numpy())
    wanted, where = sklearn.kneighbors(queries.double().numpy())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert (indices.numpy() == where).mean() > 0.999


def test_pieces_of_any_size(monkeypatch):
    queries, points = sets(23, 50, 4)
    whole = nearest(queries, points, 9)
    for name, size in (("QUERIES", 5), ("POINTS", 7), ("VALUES", 64)):
        monkeypatch.setattr(distances, name, size)
        for got, wanted in zip(nearest(queries, points, 9), whole, strict=True):
            torch.testing.assert_close(got, wanted)


def test_loses_no_digits_far_from_the_origin():
    queries, points = sets(40, 200, 8, offset=1000.0)
    found, _ = nearest(queries, points, 3)
    wanted = np.sort(cdist(queries.double().numpy(), points.double().numpy()), axis=1)[:, :3]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


def test_near_duplicates_are_told_apart():
    _, points = sets(0, 100, 32)
    queries = points[:10] + 1e-5
    found, indices = nearest(queries, points, 1)
    assert indices[:, 0].tolist() == list(range(10))
    np.testing.assert_allclose(found[:, 0].numpy(), (queries - points[:10]).double().norm(dim=1).numpy(), rtol=1e-2)
    assert nearest(points, points, 1)[0].max() == 0


def test_pixels():
    points = torch.randint(256, (300, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found, indices = nearest(points[:20], points, 2)
    assert indices[:, 0].tolist() == list(range(20)) and found[:, 0].max() == 0
    wanted = np.sort(cdist(points[:20].numpy(), points.numpy()), axis=1)[:, 1]
    np.testing.assert_allclose(found[:, 1].numpy(), wanted, rtol=1e-6)


def test_no_queries():
    found, indices = nearest(torch.empty(0, 3), torch.zeros(4, 3), 2)
    assert found.shape == indices.shape == (0, 2)


@pytest.mark.parametrize("k", [0, 5, -1])
def test_refuses_k(k):
    with pytest.raises(ValueError, match=f"k={k}; expected 1 to 4"):
        nearest(torch.zeros(2, 3), torch.zeros(4, 3), k)
