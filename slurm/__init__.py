"""Grids on a Slurm cluster: packed, submitted through submitit, resumed, watched."""
