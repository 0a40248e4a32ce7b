"""A trained model as one compiled function of a photo, for programs that know nothing of larvseg_jax."""
