"""Pictures: where each sample's pixels lie, and what a scatter plot shows."""

import numpy as np
import pytest
import torch

from ganrun.pictures import GAP, font_of, grid, heads, most_classes, scatter, tell_unwritten, to_uint8


def array(picture) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture)


def cell(picture, row: int, column: int, size: int, head: int = 0) -> np.ndarray:
    top, left = head + GAP + row * (size + GAP), GAP + column * (size + GAP)
    return array(picture)[top : top + size, left : left + size]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_in_its_cell(channels):
    images = torch.rand(5, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    picture = grid(images, columns=3)
    assert picture.size == (3 * 66 + 2, 2 * 66 + 2)  # width, height
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    for i in range(5):
        assert (cell(picture, i // 3, i % 3, 64) == pixels[i]).all()
    assert (cell(picture, 1, 2, 64) == 255).all()  # nothing there


def test_gaps_are_white():
    pixels = array(grid(torch.zeros(4, 1, 64, 64), columns=2))
    assert (pixels[:2] == 255).all() and (pixels[66:68] == 255).all() and (pixels[:, -2:] == 255).all()
    assert (pixels == 0).sum() == 4 * 64 * 64 * 3


@pytest.mark.parametrize(("size", "scale"), [(8, 6), (16, 3), (28, 2), (32, 2), (48, 1), (200, 1)])
def test_small_images_are_enlarged(size, scale):
    images = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    picture = grid(images, columns=1)
    assert picture.size == (size * scale + 4, size * scale + 4)
    expected = (images[0, 0] * 255).round().byte().numpy().repeat(scale, 0).repeat(scale, 1)
    assert (cell(picture, 0, 0, size * scale)[..., 0] == expected).all()


def test_oblong_images():
    images = torch.zeros(2, 3, 64, 96)
    picture = grid(images, columns=2)
    assert picture.size == (2 * 98 + 2, 66 + 2)
    assert (array(picture)[2:66, 2:98] == 0).all() and (array(picture)[2:66, 100:196] == 0).all()


def test_values_are_clamped_and_rounded():
    images = torch.tensor([-3.0, 0.0, 0.5, 1.0, 7.0])[:, None, None, None].expand(-1, 1, 64, 64)
    picture = grid(images, columns=5)
    assert [cell(picture, 0, i, 64)[5, 5, 0] for i in range(5)] == [0, 0, 128, 255, 255]


def test_to_uint8_by_hand():
    images = torch.tensor([-9.0, -1.0, -0.9961, -0.996, 0.0, 0.9, 1.0, 9.0])
    assert to_uint8(images).tolist() == [0, 0, 0, 1, 128, 242, 255, 255]  # 0 is 127.5, to the even neighbour
    assert to_uint8(images / 2 + 0.5, (0, 1)).tolist() == [0, 0, 0, 1, 128, 242, 255, 255]
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels / 127.5 - 1), levels)
    assert torch.equal(to_uint8(levels / 255, (0, 1)), levels)


@pytest.mark.parametrize("columns", [2, 4])
def test_names_head_their_columns(columns):
    names = ["cat", "a name that is far too long for its column", "i", "dog"]
    images = torch.zeros(8, 3, 64, 64)
    plain, named = grid(images, columns=columns), grid(images, columns=columns, names=names)
    assert named.size == (plain.width, plain.height + 14)
    assert (array(named)[14:] == array(plain)).all()
    for i in range(columns):
        left = GAP + i * (64 + GAP)
        assert (array(named)[:14, left : left + 64] < 128).any()
    for i in range(columns + 1):
        assert (array(named)[:14, i * (64 + GAP) : i * (64 + GAP) + GAP] == 255).all()  # names keep to their columns


@pytest.mark.parametrize(
    ("num", "size", "most"),
    [(64, 32, 16), (9, 32, 10), (1024, 32, 62), (64, 256, 15), (64, 1024, 8)],  # 62 * 66 and 15 * 258 fit into 4096
)
def test_most_classes_of_a_page(num, size, most):
    assert most_classes(num, (size, size)) == most


def strokes(name: str) -> np.ndarray:
    return array(grid(torch.ones(1, 3, 64, 64), columns=1, names=[name]))[:14] < 128


@pytest.mark.parametrize("name", ["é", "ü", "Ж", "Ω", "ż"])
def test_every_letter_of_a_heading_is_drawn(name):
    missing = font_of(name).getmask("\U0010ffff")  # as any font draws what it has not
    assert heads([name], [0]) == [name] and strokes(name).any()
    assert bytes(font_of(name).getmask(name)) != bytes(missing)


def test_a_name_that_no_font_has_is_headed_by_its_index_and_told_once(caplog):
    tell_unwritten.cache_clear()
    names = ["cat", "\U0010fffe", "a\nb"]
    for _ in range(2):
        assert heads(names, [2, 0, 1]) == ["#2", "cat", "#1"]
    assert caplog.messages == [
        "no font on this machine has the letters of #1 '\\U0010fffe', #2 'a\\nb': pictures show the index"
    ]


def points(dimensions: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(300, dimensions, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dimensions", [1, 2])
def test_scatter(dimensions):
    real, fake = points(dimensions), points(dimensions, seed=1)
    picture = scatter(fake, real)
    assert picture.size == (810, 405)  # 9 x 4.5 inches at 90 dots
    assert (array(scatter(fake, real)) == array(picture)).all()
    for other in (scatter(fake + 0.5, real), scatter(fake, real * 2)):
        changed = (array(other) != array(picture)).any(axis=(0, 2))
        assert changed[:400].any() and changed[410:].any()  # both panels


@pytest.mark.parametrize("dimensions", [1, 2])
def test_scatter_shows_the_reals_too(dimensions):
    real, fake = points(dimensions), points(dimensions, seed=1)
    at_limits = (real == real.min(0).values) | (real == real.max(0).values)
    inner = torch.where(at_limits.any(1, keepdim=True), real, real / 2)  # the axes stay
    assert (array(scatter(fake, inner))[:, :400] != array(scatter(fake, real))[:, :400]).any()


@pytest.mark.parametrize("dimensions", [1, 2])
def test_scatter_leaves_the_tensors(dimensions):
    real, fake = points(dimensions), points(dimensions, seed=1)
    kept = real.clone(), fake.clone()
    scatter(fake, real)
    assert torch.equal(real, kept[0]) and torch.equal(fake, kept[1])


def test_density_shows_where_the_generator_puts_its_mass():
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).repeat(200, 1)
    lower, upper = (array(scatter(torch.full((300, 2), value), corners))[:, 405:].astype(int) for value in (-0.9, 0.9))
    rows, columns = np.nonzero(np.abs(lower - upper).max(2))
    bright = lower[rows, columns].sum(1) > upper[rows, columns].sum(1)
    assert rows[bright].mean() > rows[~bright].mean()  # pictures count rows from the top
    assert columns[bright].mean() < columns[~bright].mean()


@pytest.mark.parametrize("dimensions", [1, 2])
def test_scatter_without_reals(dimensions):
    fake = points(dimensions)
    picture = scatter(fake)
    assert picture.size == (810, 405)
    assert (array(picture) != array(scatter(fake, points(dimensions, seed=1)))).any()
