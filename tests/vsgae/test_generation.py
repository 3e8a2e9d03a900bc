from __future__ import annotations

import math

import pytest
import torch
from epochs import train

from vsgae import generation
from vsgae.autoencoder import SHIPPED_FILE, VSGAE, VSGAEConfig
from vsgae.cells import Cells, is_nasbench101, is_valid
from vsgae.encoder import EncoderConfig
from vsgae.generation import Estimate, generate, interpolate, latent_use, reconstruct
from vsgae.nasbench101 import module_hashes
from vsgae.splits import SplitConfig, split
from vsgae.training import AutoencoderTrainingConfig, train_autoencoder


@pytest.fixture(scope="module")
def few(thousand_cells) -> Cells:
    return thousand_cells[::50]


@pytest.fixture(scope="module")
def model(few: Cells) -> VSGAE:
    """Trained on 20 cells until it knows them by heart."""
    config = VSGAEConfig(encoder=EncoderConfig(node_dim=32, graph_dim=8))
    training = AutoencoderTrainingConfig(lr=5e-3, epochs=300, batch_size=20, schedule="cosine", max_norm=5)
    _, model = train(train_autoencoder(config, training, few, seed=0))
    return model.eval()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_cells_known_by_heart_are_reconstructed_and_others_are_not(model: VSGAE, few: Cells, thousand_cells) -> None:
    from_mean = reconstruct(model, few, seeded(), from_mean=True)
    assert from_mean.exact.value == from_mean.isomorphic.value == 1
    sampled = reconstruct(model, few, seeded(), samples=3, decodings=4)
    assert 0.8 < sampled.exact.value <= sampled.isomorphic.value
    unseen = reconstruct(model, thousand_cells[25::50], seeded(), samples=2, decodings=2)
    assert unseen.exact.value < 0.5
    assert unseen.exact.n == 20
    assert sampled == reconstruct(model, few, seeded(), samples=3, decodings=4)


def test_isomorphic_counts_a_cell_whose_nodes_are_in_another_order(
    model: VSGAE, thousand_cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [i for i, (matrix, names) in enumerate(thousand_cells.to_nasbench()) if len(names) > 4 and not matrix[1, 2]]
    cells = thousand_cells[pairs]
    swapped = cells.to_nasbench()
    for i, (matrix, names) in enumerate(swapped):
        order = [0, 2, 1, *range(3, len(names))]
        swapped[i] = (matrix[order][:, order], [names[v] for v in order])
    other = Cells.from_nasbench(swapped)
    assert not other.equal(cells).all()
    monkeypatch.setattr(model, "decode", lambda *_, **__: other)
    result = reconstruct(model, cells, seeded(), from_mean=True)
    assert result.isomorphic.value == 1
    assert result.exact.value == pytest.approx(other.equal(cells).double().mean().item())


def test_generated_cells_are_counted_as_what_they_are(model: VSGAE, few: Cells) -> None:
    result = generate(model, module_hashes(few), seeded(), points=200, decodings=3)
    generator = seeded()
    z = torch.randn(200, 8, generator=generator)
    cells = Cells.concatenate([model.decode(z, generator) for _ in range(3)])
    assert result.valid.value == pytest.approx(is_valid(cells).double().mean().item())
    assert result.in_space.value == pytest.approx(is_nasbench101(cells).double().mean().item())
    hashes = module_hashes(cells[is_nasbench101(cells).nonzero().squeeze(1)])
    assert result.unique == pytest.approx(len(set(hashes)) / len(hashes))
    assert result.novel == pytest.approx(len(set(hashes) - set(module_hashes(few))) / len(set(hashes)))
    assert result.valid.n == 200
    mean, _ = generation.encode(model, few)
    scaled = generate(model, [], seeded(), points=200, decodings=3, mean=mean[0], deviation=torch.zeros(8))
    assert scaled.unique < 0.1  # a single point
    assert scaled.novel == 1


def test_without_a_cell_of_the_space_there_is_nothing_to_be_unique_or_novel(few: Cells) -> None:
    blank = VSGAE(VSGAEConfig(encoder=EncoderConfig(node_dim=4, graph_dim=3)))
    torch.nn.init.constant_(blank.decoder.add_node.logits.bias, 0.0)
    with torch.no_grad():
        blank.decoder.add_node.logits.bias[0] = 100.0  # nothing but inputs
    result = generate(blank, module_hashes(few), seeded(), points=50, decodings=2)
    assert (result.valid.value, result.in_space.value) == (0, 0)
    assert math.isnan(result.unique)
    assert math.isnan(result.novel)


def test_the_use_of_the_latent_dimensions(model: VSGAE, few: Cells) -> None:
    use = latent_use(model, few)
    assert use.kl.shape == use.active.shape == (8,)
    assert (use.kl >= 0).all()
    mean, _ = model.encode(few)
    assert use.active.tolist() == [column.var().item() > 0.01 for column in mean.t()]


def test_a_line_between_two_cells_begins_and_ends_with_them(model: VSGAE, few: Cells) -> None:
    line = interpolate(model, few[3], few[15], steps=6)
    assert len(line) == 6
    assert line[0].equal(few[3]).all()
    assert line[5].equal(few[15]).all()
    with pytest.raises(ValueError, match="2 and 1 cells; the line leads from one cell to one other"):
        interpolate(model, few[:2], few[0])
    with pytest.raises(ValueError, match="steps is 1; it must be at least 2"):
        interpolate(model, few[0], few[1], steps=1)


def test_the_model_that_comes_with_the_project_does_what_its_card_says(space: Cells) -> None:
    assert SHIPPED_FILE.stat().st_size < 12e6
    shipped = VSGAE.from_pretrained()
    held_out = space[split(space, SplitConfig(name="random_90_10")).test][::40]
    assert reconstruct(shipped, held_out, seeded(), from_mean=True).exact.value > 0.99
    assert reconstruct(shipped, held_out, seeded(), samples=1, decodings=1).exact.value > 0.97
    assert generate(shipped, [], seeded(), points=2000, decodings=1).valid.value > 0.94


def test_an_estimate_has_its_error_and_interval() -> None:
    half = Estimate.of(torch.tensor([0.0, 1.0] * 50))
    assert half.value == 0.5
    assert half.error == pytest.approx(0.0502519)
    assert half.interval == pytest.approx((0.5 - 1.96 * half.error, 0.5 + 1.96 * half.error))
    assert Estimate.of(torch.ones(300)).interval == pytest.approx((0.99, 1.0))
    assert Estimate.of(torch.zeros(300)).interval == pytest.approx((0.0, 0.01))
    assert str(half) == "50.00% (40.15% to 59.85%, n = 100)"
