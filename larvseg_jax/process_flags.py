"""The flags of a command that may run as several processes: --coordinator, --num_processes, --process_id."""

from absl import flags

COORDINATOR = flags.DEFINE_string(
    "coordinator",
    "",
    "Several hosts: host:port of process 0, or 'auto' on a TPU pod or under SLURM. Without it: one process.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are; with --coordinator.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0; with --coordinator.")


def start_processes() -> None:
    """Joins the other processes, if the flags name any; before anything else touches JAX."""
    from larvseg_jax import distributed  # imported late: a mistyped flag is answered before JAX is loaded

    distributed.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
