# Sourced by the scripts for a machine with a GPU: installs what its Python lacks from build/wheels, which
# `make gpu-wheels` fills where there is a network. PyTorch with CUDA, numpy and OpenCV must be there; PyAV is not needed.
python=${PYTHON:-python3}
mkdir -p build/gpu-site
export PYTHONPATH="$PWD:$PWD/trackers:$PWD/pipelines:$PWD/tests/helpers:$PWD/build/gpu-site${PYTHONPATH:+:$PYTHONPATH}"

missing=()
while read -r module package; do
    "$python" -c "import $module" 2> /dev/null || missing+=("$package")
done << 'LIST'
tyro tyro
docstring_parser docstring-parser
typeguard typeguard
rich rich
yaml pyyaml
safetensors safetensors
filelock filelock
jaxtyping jaxtyping
wadler_lindig wadler-lindig
PIL pillow
scipy scipy
deflate deflate
pycocotools pycocotools
psutil psutil
pytest pytest
iniconfig iniconfig
pluggy pluggy
beartype beartype
LIST
if [ ${#missing[@]} -gt 0 ]; then
    "$python" -m pip install --quiet --no-index --no-deps --find-links build/wheels --target build/gpu-site "${missing[@]}"
fi
