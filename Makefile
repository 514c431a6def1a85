# Everything a user or CI needs. `make demo` and `make test` set up what they need themselves.
PYTHON ?= python3
VENV   ?= .venv
PIP    ?=
BIN    := $(VENV)/bin
# numpy, torch and ONNX Runtime each bring a thread pool; on two cores one thread each is the fast setting for tests.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
SUDO ?= $(shell [ "$$(id -u)" = 0 ] || echo sudo)
.PHONY: help setup demo test quick mutants foreign foreign-tools trt-tools check documents bench kernels gpu-check gpu-bench gpu-material gpu-frame soak failsafe-rows clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed to calibrate and test (found: $$($(PYTHON) --version)); set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP) -c constraints.txt -e '.[calibrate,edge-weights,http,opcua,mqtt,dev]'
	@touch $@

setup: $(VENV)/.ready  ## make .venv with everything to calibrate, export, run and test (torch, open3d)

demo: setup  ## calibrate on the virtual camera, export, stream, show results (build/demo)
	$(BIN)/asperity demo --out build/demo

# Half of the suite waits for processes: twice as many workers as cores keep the cores busy. What they share is made once
# and kept in build/test-cache (tests/kept.py).
JOBS   ?= $(shell n=$$(( 2 * $$(env -u OMP_NUM_THREADS nproc) )); echo $$(( n < 8 ? n : 8 )))
PYTEST  = $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
# Another order of the tests: ORDER="-p randomly --randomly-seed=17 --randomly-dont-reset-seed" (.ci/run).
ORDER  ?=

test: setup  ## the whole test suite but soak and gpu (JOBS=N: so many at once)
	$(PYTEST) -m 'not gpu and not soak' $(ORDER)

# Rooms without processes, compilers and networks: what a change of the runtime breaks shows here first.
UNITS  := bundle/test_bundle.py cameras engines inspector judging records security settings vision wire
quick: setup  ## tests of the runtime's rooms alone: under a minute
	$(PYTEST) -m 'not gpu and not soak and not foreign' tests/test_*.py tests/examples/test_plc.py \
		tests/runtime/test_*.py $(UNITS:%=tests/runtime/%)

mutants: setup  ## small faults in what a verdict rests on: each must make a test fail
	$(BIN)/python -m tests.mutation

foreign-tools:  ## what tests marked foreign need: libzmq's C headers, mosquitto, npm packages
	dpkg -s libzmq3-dev mosquitto mosquitto-clients >/dev/null 2>&1 || $(SUDO) sh -c 'apt-get update -qq && \
		apt-get install -y --no-install-recommends gcc libc6-dev libzmq3-dev mosquitto mosquitto-clients'
	npm ci --no-audit --no-fund --prefix examples/node
	npm ci --no-audit --no-fund --prefix tests/runtime/gateways/node

foreign: setup foreign-tools  ## the client kits in C and Node, and programs from Debian, against live stations
	$(BIN)/python -m pytest -m foreign

trt-tools: setup  ## TensorRT-RTX, which builds real engines without a GPU (96 MB to fetch, 244 MB on the disk)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP) -c constraints.txt tensorrt-rtx

check: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

documents: setup  ## make the tables of docs/ and the constants of examples/generated anew from the sources
	$(BIN)/python -m asperity.runtime.documents

# numpy and ONNX Runtime as a station runs them: no thread count but the engine's own.
MEASURE := env -u OMP_NUM_THREADS $(BIN)/asperity bench
DEMO    := build/demo/station/bundle build/demo/normals

bench: setup  ## timings of this machine into build/bench: JSON and pages (after `make demo`; a quiet machine, please)
	$(MEASURE) latency $(DEMO) --rate 5,8 --trace-slowest 20 --out build/bench/latency.json
	$(MEASURE) latency $(DEMO) --load gaps --out build/bench/gaps.json
	$(MEASURE) rates $(DEMO) --stations 1,2,4 --out build/bench/rates.json
	$(MEASURE) knn build/demo/station/bundle --out build/bench/knn.json
	$(MEASURE) points $(DEMO) --out build/bench/points.json
	$(MEASURE) wire --out build/bench/wire.json

kernels: setup  ## compile the CUDA kernels for every GPU this nvcc knows (minutes; needs nvcc, no GPU)
	$(BIN)/python -m asperity.runtime.cuda.build

# They need no .venv: on a bare machine with a GPU, GPU_LIBS names a folder with what its Python lacks (docs/kernels.md).
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_RUN    := env -u OMP_NUM_THREADS $(if $(GPU_LIBS),PYTHONPATH=$(GPU_LIBS)) $(GPU_PYTHON) -m
ONLY       ?=

# Without ONLY the kernels, then whole frames (docs/gpu-day.md): both are run, and both must be right.
define gpu_run
	@code=0; $(GPU_RUN) $(1) $(addprefix --only ,$(ONLY)) || code=1; \
	$(if $(ONLY),:,$(GPU_RUN) asperity.benchmarks.gpu.frame $(2) --material $(GPU_MATERIAL)) || code=1; exit $$code
endef
GPU_MATERIAL ?= build/gpu-material

gpu-check:  ## kernels against float64, whole frames against the CPU, on this machine's GPU (ONLY="STAGE ...": kernels)
	$(call gpu_run,asperity.benchmarks.gpu.check,check)

gpu-bench:  ## what share of the GPU's rates every kernel reaches; whole frames' latency and rate (ONLY="STAGE ...")
	$(call gpu_run,asperity.benchmarks.gpu.bench,bench)

gpu-material: setup  ## frames and weights for a GPU machine without Open3D and network (build/gpu-material, 38 MB)
	$(BIN)/python -m asperity.benchmarks.gpu.material --out $(GPU_MATERIAL)

gpu-frame:  ## whole frames alone (ONLY="STAGE ...", also the beginning of names)
	$(GPU_RUN) asperity.benchmarks.gpu.frame --material $(GPU_MATERIAL) $(addprefix --only ,$(ONLY))

soak: setup  ## long runs: fuzzing over sockets, memory over time (after `make demo`)
	$(BIN)/asperity bench rubbish --messages 1000000 --out build/soak/rubbish.json
	$(MEASURE) soak $(DEMO) --minutes 30 --out build/soak/soak.json
	$(BIN)/python -m pytest -m soak --ignore tests/failsafe

failsafe-rows: setup  ## switch off what each row of docs/failsafe.md rests on, and see its test fail (an hour; ROW="TEXT": some)
	$(BIN)/python -m tests.failsafe.rows --only "$(ROW)"

clean:  ## remove what was built
	rm -rf build $(VENV) *.egg-info
