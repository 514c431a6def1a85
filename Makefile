# Everything a user or CI needs. `make demo` and `make test` set up what they need themselves.
PYTHON ?= python3
VENV   ?= .venv
PIP    ?=
BIN    := $(VENV)/bin
# numpy, torch and ONNX Runtime each bring a thread pool; on two cores one thread each is the fast setting for tests.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
SUDO ?= $(shell [ "$$(id -u)" = 0 ] || echo sudo)
.PHONY: help setup demo test quick mutants foreign foreign-tools trt-tools check documents bench kernels gpu-check gpu-bench gpu-material gpu-frame soak environments failsafe-rows clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed to calibrate and test (found: $$($(PYTHON) --version)); set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP) -c constraints.txt -e '.[calibrate,edge-weights,http,opcua,mqtt,genicam,realsense,ros2,dev]'
	@touch $@

setup: $(VENV)/.ready  ## create .venv with all packages to calibrate, export, run and test (torch, open3d)

demo: setup  ## calibrate on the virtual camera, export, stream, show results (build/demo)
	$(BIN)/asperity demo --out build/demo

# Half of the suite waits for processes: four workers for each core keep the cores busy. What they share is made once
# and kept in build/test-cache (tests/kept.py).
JOBS   ?= $(shell n=$$(( 4 * $$(env -u OMP_NUM_THREADS nproc) )); echo $$(( n < 8 ? n : 8 )))
PYTEST  = $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
# To run the tests in another order: ORDER="-p randomly --randomly-seed=17 --randomly-dont-reset-seed".
ORDER  ?=

test: setup  ## the whole test suite except soak and gpu (JOBS=N: number of workers)
	$(PYTEST) -m 'not gpu and not soak' $(ORDER)

# Packages that need no processes, compilers or networks: faults in the runtime show here first.
UNITS  := bundle/test_bundle.py cameras engines inspector judging records security settings vision wire
quick: setup  ## tests of the runtime packages only: under a minute
	$(PYTEST) -m 'not gpu and not soak and not foreign' tests/test_*.py tests/examples/test_plc.py \
		tests/runtime/test_*.py $(UNITS:%=tests/runtime/%)

mutants: setup  ## mutation tests of the code behind a verdict: each mutant must make a test fail
	$(BIN)/python -m tests.mutation

foreign-tools:  ## install what tests marked foreign need: libzmq's C headers, mosquitto, promtool, schemathesis, npm packages (not Node-RED: NODE_RED=.../red.js)
	dpkg -s libzmq3-dev mosquitto mosquitto-clients prometheus >/dev/null 2>&1 || $(SUDO) sh -c 'apt-get update -qq && \
		apt-get install -y --no-install-recommends gcc libc6-dev libzmq3-dev mosquitto mosquitto-clients prometheus'
	test -x build/foreign/bin/schemathesis || { $(PYTHON) -m venv build/foreign && \
		build/foreign/bin/pip install --quiet --disable-pip-version-check $(PIP) schemathesis==4.32.5; }
	npm ci --no-audit --no-fund --prefix examples/node
	npm ci --no-audit --no-fund --prefix tests/runtime/gateways/node

foreign: setup foreign-tools  ## test the client kits in C and Node, and programs from Debian, against live stations
	$(BIN)/python -m pytest -m foreign

trt-tools: setup  ## install TensorRT-RTX, which builds real engines without a GPU (96 MB download, 244 MB on disk)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP) -c constraints.txt tensorrt-rtx

check: setup  ## check style and types (ruff, mypy)
	$(BIN)/ruff check .
	$(BIN)/mypy

documents: setup  ## regenerate the tables in docs/ and the constants in examples/generated from the sources
	$(BIN)/python -m asperity.runtime.documents

# numpy and ONNX Runtime as a station runs them: only the engine sets thread counts.
MEASURE := env -u OMP_NUM_THREADS $(BIN)/asperity bench
DEMO    := build/demo/station/bundle build/demo/normals

bench: setup  ## measure this machine: JSON and pages in build/bench (after `make demo`; needs an idle machine)
	$(MEASURE) latency $(DEMO) --rate 5,8 --trace-slowest 20 --out build/bench/latency.json
	$(MEASURE) latency $(DEMO) --load gaps --out build/bench/gaps.json
	$(MEASURE) rates $(DEMO) --stations 1,2,4 --out build/bench/rates.json
	$(MEASURE) knn build/demo/station/bundle --out build/bench/knn.json
	$(MEASURE) points $(DEMO) --out build/bench/points.json
	$(MEASURE) wire --out build/bench/wire.json

kernels: setup  ## compile the CUDA kernels for every GPU this nvcc knows (minutes; needs nvcc, no GPU)
	$(BIN)/python -m asperity.runtime.cuda.build

# They need no .venv: on a bare machine with a GPU, GPU_LIBS is a folder with the packages its Python lacks (docs/kernels.md).
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_RUN    := env -u OMP_NUM_THREADS $(if $(GPU_LIBS),PYTHONPATH=$(GPU_LIBS)) $(GPU_PYTHON) -m
ONLY       ?=

# Without ONLY, the kernels and then whole frames (docs/gpu-day.md): both are run and both must be correct.
define gpu_run
	@code=0; $(GPU_RUN) $(1) $(addprefix --only ,$(ONLY)) || code=1; \
	$(if $(ONLY),:,$(GPU_RUN) asperity.benchmarks.gpu.frame $(2) --material $(GPU_MATERIAL)) || code=1; exit $$code
endef
GPU_MATERIAL ?= build/gpu-material

gpu-check:  ## check kernels against float64 and whole frames against the CPU on this GPU (ONLY="STAGE ...": kernels)
	$(call gpu_run,asperity.benchmarks.gpu.check,check)

gpu-bench:  ## measure each kernel's share of the GPU's rates, and latency and rate of whole frames (ONLY="STAGE ...")
	$(call gpu_run,asperity.benchmarks.gpu.bench,bench)

gpu-material: setup  ## pack frames and weights for a GPU machine without Open3D and network (build/gpu-material, 38 MB)
	$(BIN)/python -m asperity.benchmarks.gpu.material --out $(GPU_MATERIAL)

gpu-frame:  ## check and measure whole frames only (ONLY="STAGE ...", or the beginning of a name)
	$(GPU_RUN) asperity.benchmarks.gpu.frame --material $(GPU_MATERIAL) $(addprefix --only ,$(ONLY))

environments: setup  ## every command in every environment of tests/system/environments.py (as root: all of them)
	$(BIN)/python -m pytest -m soak tests/system/test_environments.py

soak: setup  ## long runs: fuzzing over sockets, memory over time (after `make demo`)
	$(BIN)/asperity bench rubbish --messages 1000000 --out build/soak/rubbish.json
	$(MEASURE) soak $(DEMO) --minutes 30 --out build/soak/soak.json
	$(BIN)/python -m pytest -m soak --ignore tests/failsafe

failsafe-rows: setup  ## disable the mechanism of each row of docs/failsafe.md; its test must fail (an hour; ROW="TEXT": some rows)
	$(BIN)/python -m tests.failsafe.rows --only "$(ROW)"

clean:  ## remove build products
	rm -rf build $(VENV) *.egg-info
