"""What a study's tables become in MLflow, without MLflow."""

from pipelines.mlflow_values import lines_over_sigma


def test_trainings_of_other_lengths_are_lines_of_their_own():
    """What differs in its epochs alone is no other seed, and is not averaged with it."""
    row = {"dataset": "digits", "model": "uvb", "recipe": "fast", "split": "test", "estimator": "energy", "seed": 0}
    rows = [
        row
        | {"spec_id": f"{epochs}-{sigma}-{seed}", "epochs": epochs, "sigma": sigma, "seed": seed, "loss": epochs + sigma + seed}
        for epochs in (8, 20)
        for sigma in (0.5, 1.0)
        for seed in (0, 1)
    ]
    lines = lines_over_sigma(rows)
    at = [("loss_over_sigma", 50), ("loss_over_sigma", 100)]
    assert lines == {f"UVB {n} epochs": dict(zip(at, (n + 1.0, n + 1.5), strict=True)) for n in (8, 20)}
    assert lines_over_sigma(rows[:4]).keys() == {"UVB"}
