"""How long Cox and frailty fits take, beside lifelines' CoxPHFitter: the same rows, Efron's ties, one thread each.

Outcomes of 100 units in whole days, so that many are tied; 70% die within two years. Timed is the CPU of the fit, in a
process of its own which has fitted a few rows before. lifelines' fit works out a baseline and everybody's partial
hazard as well, and leaves concordance for later; so ours makes its baseline, and no concordance. It takes rows one by
one or by times of death, as it chooses; `lifelines_batch` is told to take times. Ours looks for no cluster that drives
a fit, as it would up to 20,000 rows: that is three fits more. Coefficients must agree.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
THEIRS = ROOT / ".venv-bench" / "bin" / "python"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
QUICK = SIZES[:3]
UNITS, WARM = 100, 500
NAMES = ("age", "risk", "bmi", "sex", "acute")
FITS = ("cox", "frailty", "lifelines", "lifelines_batch")


def name(size: int) -> str:
    return f"1e{len(str(size)) - 1}"


def outcomes(size: int, seed: int = 5) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x = np.column_stack([random.normal(size=(size, 3)), random.integers(0, 2, (size, 2))])
    unit = random.integers(0, UNITS, size)
    log_risk = x @ [0.3, 0.5, -0.1, 0.2, 0.7] + np.log(random.gamma(1 / 0.3, 0.3, UNITS))[unit]
    days = random.exponential(500 / np.exp(log_risk))
    return {"days": np.ceil(np.minimum(days, 730)), "died": days <= 730, "x": x, "unit": unit}


def rows(sizes: tuple[int, ...], repeats: int) -> Iterator[tuple[str, float]]:
    """Name and seconds, in turns; of a million rows once."""
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            path = Path(folder) / "rows.npz"
            np.savez(path, **outcomes(size))
            for _ in range(repeats if size < 1_000_000 else 1):
                found = {fit: _child(fit, path) for fit in FITS}
                if not np.allclose(found["cox"]["coef"], found["lifelines"]["coef"], atol=1e-4):
                    raise RuntimeError(f"coefficients differ at {size} rows: {found}")
                for fit, one in found.items():
                    yield f"{fit}_{name(size)}", one["seconds"]


def _child(fit: str, path: Path) -> dict[str, object]:
    python = str(THEIRS) if fit.startswith("lifelines") else sys.executable
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | threads | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, __file__, fit, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def _ours(kind: str, data: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    from streams.quality import cox, frailty
    from streams.quality.riskset import cases

    started = time.process_time()
    given = cases(data["days"], data["died"], data["x"], NAMES)
    if kind == "cox":
        fitted = cox.fit(given, with_concordance=False)
        cox.baseline(given, fitted)
        return time.process_time() - started, fitted.coef
    shared = frailty.fit(given, data["unit"], look_for_driver=False)
    return time.process_time() - started, shared.coef


def _theirs(kind: str, data: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    import pandas as pd
    from lifelines import CoxPHFitter

    frame = pd.DataFrame(data["x"], columns=list(NAMES)).assign(days=data["days"], died=data["died"])
    started = time.process_time()
    batches = True if kind == "lifelines_batch" else None
    fitted = CoxPHFitter().fit(frame, "days", "died", batch_mode=batches)
    return time.process_time() - started, fitted.params_.to_numpy()


def main() -> None:
    kind, path = sys.argv[1:]
    with np.load(path) as file:
        data = dict(file)
    for some in ({one: values[:WARM] for one, values in data.items()}, data):
        seconds, coef = _theirs(kind, some) if kind.startswith("lifelines") else _ours(kind, some)
    print(json.dumps({"seconds": seconds, "coef": coef.tolist()}))


if __name__ == "__main__":
    main()
