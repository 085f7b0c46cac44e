"""Where grids will go to a Slurm cluster; nothing is here yet."""
