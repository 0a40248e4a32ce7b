"""The world all tests run in: strict JAX on 8 emulated CPU devices, annotations checked, no TensorFlow."""

import os
import sys
from pathlib import Path

# JAX reads these once, when it is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiled in a third of the time, because compiling is most of what the tests do (tests/child.py has the same).
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    ]
)
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from absl import flags
from jaxtyping import install_import_hook

# From here on every module of these packages has its signatures checked at each call.
install_import_hook(["larvseg_jax", "data_pipelines"], "beartype.beartype")

# Grain's worker processes read absl flags, which only absl.app.run would have parsed.
flags.FLAGS.mark_as_parsed()

REPOSITORY = Path(__file__).resolve().parent.parent


def share_cores():
    """Gives this test process cores of its own, where several run at a time.

    XLA's threads of one process would be as many as the machine has cores, and those of two wait for each other: all
    tests took 28 minutes so on 2 cores, and 14.5 with a core for each process. Programs that tests start inherit it.
    """
    count, name = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), os.environ.get("PYTEST_XDIST_WORKER", "")
    if count > 1 and hasattr(os, "sched_setaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(name.removeprefix("gw")) % len(cores) :: count])


def pytest_configure(config):
    """Keeps compiled programs between runs, and shares them between the test processes of one run."""
    share_cores()  # before JAX counts them
    import jax

    cache = getattr(config, "cache", None)
    if cache is not None:
        # In the environment, so that programs which tests start read and write the same ones.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache.mkdir("xla"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
        jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="session", autouse=True)
def no_tensorflow():
    """Nothing that was tested may have brought TensorFlow or PyTorch in."""
    yield
    assert not {"tensorflow", "torch"} & sys.modules.keys(), "something imported TensorFlow or PyTorch"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with goldens/ and realdata/ (docs say how to get them): LARVSEG_SHARED, else ../shared."""
    folder = Path(os.environ.get("LARVSEG_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no goldens and photographs here: set LARVSEG_SHARED to their folder ({folder} is none)")
    return folder


@pytest.fixture
def one_device(monkeypatch):
    """Trainings of this process use one of its 8 devices: what concerns no other device is tested sooner so."""
    import jax

    from larvseg_jax import assemble
    from larvseg_jax.devices.mesh import make_mesh

    monkeypatch.setattr(assemble, "mesh_of", lambda run: make_mesh(1, 1, jax.devices()[:1]))
