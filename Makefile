# `make demo` and `make test` are the two commands; each makes the virtual environment that it needs.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test mutants test-memory test-big-data test-streams test-groups test-kill test-studies test-golden test-timm test-targets test-slurm test-slurm-long slurm-soak slurm-scale report-scale data-scale bench doctor \
	gpu gpu-rehearsal slurm-up slurm-down parity parity-devices test-parity parity-tables lint format clean

demo: .venv/installed  ## train the demo ablation, print its table and write its report
	$(BIN)/mixlab run experiments/ablations/demo.yaml --jobs 2
	$(BIN)/mixlab report experiments/ablations/demo.yaml

test: .venv/installed-dev  ## the test suite, but for what needs Slurm: make test-slurm
	$(BIN)/python -m pytest -m "not slurm and not targets" --numprocesses 2 --dist loadfile --no-loadscope-reorder

mutants: .venv/installed-dev  ## plant one-line faults, one after the other, and print those that no test sees
	$(BIN)/python -m tests.mutants $(ONLY)

test-memory: .venv/installed-dev  ## the estimates of memory against the peaks of processes: 8 settings, both frameworks
	MIXLAB_MEMORY=1 $(BIN)/python -m pytest tests/test_memory_estimate.py -s

test-big-data: .venv/installed-dev  ## a prepared set of 20 GiB (sparse) trains in 4 GiB, with the peak of one of 40 MiB
	MIXLAB_BIG_DATA=1 $(BIN)/python -m pytest tests/test_big_data.py -s

test-streams: .venv/installed-dev  ## killed and resumed trials from memory, disk and encoded, 1, 2 and 4 threads: equal bits
	MIXLAB_STREAMS=long $(BIN)/python -m pytest tests/test_streamed_trials.py

test-groups: .venv/installed-dev  ## trials on 2, 4 and 8 devices: bits of every operator and augmentation, and ten kills, stops and deaths of each process
	MIXLAB_GROUPS=long $(BIN)/python -m pytest tests/test_group.py tests/test_group_faults.py tests/test_group_bits.py -s

test-kill: .venv/installed-dev  ## 200 kills at random instants of a small grid (about an hour)
	MIXLAB_KILLS=200 $(BIN)/python -m pytest tests/test_kill.py -s

test-studies: .venv/installed-dev  ## 4,000 simulated studies of each of 56 kinds: coverage, errors and power (about 15 minutes)
	MIXLAB_STUDIES=4000 $(BIN)/python -m pytest tests/test_simulated_studies.py -s

test-golden: .venv/installed-dev  ## every golden weight of ViT, gMLP and ResMLP in every way: gradients and steps of JAX too
	MIXLAB_GOLDEN=long $(BIN)/python -m pytest tests/test_golden_blocks.py

test-parity: .venv/installed-dev  ## planted faults of the ladder in each framework and precision, and on 2, 4 and 8 processes
	MIXLAB_PARITY=long $(BIN)/python -m pytest tests/test_parity_faults.py tests/test_parity_terms.py tests/test_parity_groups.py tests/test_trials_together.py

test-timm: .venv/installed-dev  ## exported models as timm itself loads them; without torchvision, which a Mixer does not need
	$(BIN)/python -m pip install --quiet --no-deps timm==1.0.31
	MIXLAB_TIMM=1 $(BIN)/python -m pytest tests/test_export_timm.py -s

test-targets: .venv/installed-dev  ## compiles cifar and S/16 for a TPU and a GPU that are not here (700 MB; about 10 minutes)
	$(INSTALL) '.[all,dev,tpu-aot,cuda-aot]'
	$(BIN)/python -m pytest -m targets -rs -s

test-slurm: .venv/installed-dev  ## the proofs on a real Slurm, which is started on this machine (about 9 minutes)
	$(BIN)/python -m pytest -m slurm -rs --numprocesses 4 --dist load

test-slurm-long: .venv/installed-dev  ## the same, each of them on both frameworks, and 10,000 trials
	MIXLAB_SLURM=long $(BIN)/python -m pytest -m slurm -rs --numprocesses 2 --dist load

slurm-soak: .venv/installed-dev  ## 300 trials under random faults for ten minutes
	MIXLAB_SOAK_MIN=10 $(BIN)/python -m pytest tests/test_slurm_soak.py -s

slurm-scale: .venv/installed-dev  ## seconds and memory of 10,000 trials, and of a job's start
	MIXLAB_SLURM=long $(BIN)/python -m pytest tests/test_slurm_scale.py -s

data-scale: .venv/installed-dev  ## seconds and memory of planning 1.3 million files or images, and prepare against a bare decoder
	MIXLAB_DATA_SCALE=1 $(BIN)/python -m pytest tests/test_data_scale.py -s

report-scale: .venv/installed-dev  ## seconds and memory of a report over 10,000 trials
	MIXLAB_REPORT_SCALE=1 $(BIN)/python -m pytest tests/test_report_scale.py -s

# PEERS=yes needs timm and mlp-mixer-pytorch installed, and OFFICIAL to name a clone of google-research/vision_transformer.
BENCH := $(BIN)/mixlab bench
bench: .venv/installed  ## the machine's ceilings, a step against them and against other people's code, a grid's time
	$(BENCH) limit --store runs
	$(BENCH) step --config cifar $(if $(PEERS),--backend torch --peer timm --peer timm-compile --peer lucidrains)
	$(BENCH) step --config S/16 $(if $(PEERS),--backend torch --peer timm --peer timm-compile)
	$(if $(PEERS),$(BENCH) step --config cifar --backend jax --peer official-flax --peer-path $(OFFICIAL))
	$(if $(PEERS),$(BENCH) step --config S/16 --backend jax --peer official-flax --peer-path $(OFFICIAL))
	$(BENCH) grid experiments/ablations/demo.yaml --jobs 2

SLURM_DIR ?= /tmp/mixlab-slurm-$(shell id -u)

slurm-up:  ## a real Slurm of four virtual nodes inside SLURM_DIR; it says how to use it
	$(PYTHON) -m slurm.testbed.up $(SLURM_DIR)

slurm-down:  ## stop it and remove SLURM_DIR
	$(PYTHON) -m slurm.testbed.down $(SLURM_DIR) --purge

# The tolerances are for 200 steps; STEPS=5 SETTINGS=model.num_blocks=1 with the models of another file is a short form.
FAMILIES := experiments/parity/resnet.yaml experiments/parity/stages.yaml
PARITY ?= experiments/parity/options.yaml experiments/parity/augment.yaml $(FAMILIES)
STEPS ?= 200
SETTINGS ?=

parity: parity-float64 parity-float32 parity-devices  ## the parity ladder on every option with both optimizers, augmentation and family, and on several devices (about 40 minutes)

# A side of one process against one of two; DEVICES="8 4" are others that divide the 8 microbatches.
DEVICES ?= 1 2
parity-devices: .venv/installed  ## trials in microbatches on one and on two devices: on every rung the same bits
	failed=0; for backend in torch jax; do for precision in float64 float32; do \
	  $(BIN)/mixlab parity experiments/parity/devices.yaml --steps 20 $(SETTINGS) \
	    --pair "$$backend:$$precision:cpu x$(word 1,$(DEVICES)),$$backend:$$precision:cpu x$(word 2,$(DEVICES))" || failed=1; \
	done; done; exit $$failed

parity-%: .venv/installed
	failed=0; for file in $(PARITY); do \
	  $(BIN)/mixlab parity $$file --pair torch:$*,jax:$* $(SETTINGS) --steps $(STEPS) || failed=1; \
	done; exit $$failed

parity-tables: .venv/installed  ## the tables of analysis/results/parity_operators.md: options at a small size (about 15 minutes)
	for precision in float64 float32; do \
	  $(BIN)/mixlab parity experiments/parity/options.yaml --pair torch:$$precision,jax:$$precision --steps 20 --markdown model.hidden_dim=16; \
	  for file in $(FAMILIES); do $(BIN)/mixlab parity $$file --pair torch:$$precision,jax:$$precision --markdown; done; \
	done

DEVICE ?= auto
DOCTOR ?= --minutes 8

doctor: .venv/installed  ## examine this machine: DEVICE=cpu, DOCTOR="--short --minutes 10"
	$(BIN)/mixlab doctor --device $(DEVICE) $(DOCTOR) --out doctor

# A folder for a GPU machine that has no network; its script says how it is called. The rehearsal needs root, and a
# Python 3.12 with PyTorch and JAX, but without what the folder brings.
GPU_DIR ?= gpu
GPU_PYTHON ?= python3.12

gpu: .venv/installed  ## the doctor with all that such a machine lacks, as one folder
	$(BIN)/python -m experiments.doctor.offline $(GPU_DIR)

gpu-rehearsal: gpu  ## the same folder here, on a CPU, in short, with the network off
	failed=0; for call in 1 2 3; do \
	  PYTHON=$(GPU_PYTHON) unshare --net bash $(GPU_DIR)/doctor.sh $$call $(GPU_DIR)/out --device cpu --short || failed=1; \
	done; exit $$failed

lint: .venv/installed-dev  ## style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment; results stay
	rm -rf .venv *.egg-info

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[all]'
	touch $@

.venv/installed-dev: .venv/installed
	$(INSTALL) '.[all,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt trackio  # for pictures it wants an older Pillow
	touch $@
