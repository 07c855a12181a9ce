"""Jobs: pods that run to an end so many times. :mod:`~controllers.job.plan` decides, ``controller`` does."""
