def report_run(run, mesh, state, record):
    return "x"
