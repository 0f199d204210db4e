"""Keyed noise."""

import torch

from uvb.noise import generator, key_to_seed, normal


def test_normal_depends_only_on_its_key():
    torch.manual_seed(1)
    a = normal((3, 4), 7, "noise", 2, 5)
    torch.manual_seed(2)
    assert torch.equal(a, normal((3, 4), 7, "noise", 2, 5))
    for other in [(8, "noise", 2, 5), (7, "latent", 2, 5), (7, "noise", 5, 2), (7, "noise", 25)]:
        assert not torch.equal(a, normal((3, 4), *other))


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    normal((5,), 0, "x")
    torch.randn(5, generator=generator(0, "y"))
    assert torch.equal(before, torch.get_rng_state())


def test_key_to_seed_fits_a_signed_64_bit_integer_without_collisions():
    seeds = {key_to_seed(0, "noise", epoch, step) for epoch in range(100) for step in range(100)}
    assert len(seeds) == 10_000
    assert max(seeds) < 2**63
