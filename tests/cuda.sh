#!/usr/bin/env bash
# Checks gap-train and gap-serve with the feature `cuda` on a machine without a GPU. NVIDIA's compiler and headers come from
# the Python index into DIR, and the build lies there as well. Nothing is linked or run, for want of the driver's library:
# the kernels that both programs load are compiled, and all Rust code is checked against the types that it will meet.
#   tests/cuda.sh DIR
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
directory=$(realpath -m "${1:?usage: tests/cuda.sh DIR}")
toolkit=$directory/toolkit/nvidia/cu13
if [ ! -e "$directory/toolkit/complete" ]; then
  rm -rf "$directory/toolkit"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --target "$directory/toolkit" \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 \
    nvidia-cuda-cccl==13.0.85 nvidia-curand==10.4.0.35
  touch "$directory/toolkit/complete"
fi
# candle also compiles objects for its own products of GGUF matrices and for mixtures of experts. They take minutes each,
# neither program calls them, and only a linker would look at them: an object without anything stands for each.
mkdir -p "$directory/bin"
cat > "$directory/bin/nvcc" <<EOF
#!/bin/sh
case " \$* " in
*" -c "*)
  while [ "\$1" != -o ]; do shift; done
  exec cc -c -x c /dev/null -o "\$2" ;;
esac
exec "$toolkit/bin/nvcc" "\$@"
EOF
chmod +x "$directory/bin/nvcc"
export NVCC=$directory/bin/nvcc CUDA_HOME=$toolkit CUDA_PATH=$toolkit PATH=$directory/bin:$toolkit/bin:$PATH
# Of the oldest GPUs that compute in bfloat16; newer ones take their kernels.
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}
cd "$here"
${CARGO:-cargo} check --locked -p gap-lm -p gap-train -p gap-serve --features gap-train/cuda,gap-serve/cuda \
  --target-dir "$directory/target"
