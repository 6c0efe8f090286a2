#!/bin/bash
# A cohort through `imt pipeline` on a Slurm cluster: one job, a Dask scheduler, one Dask worker a task.
#
#     sbatch Resources/Batch/slurm_pipeline.sh INPUT OUTPUT [options of imt pipeline]
#     sbatch --nodes=4 Resources/Batch/slurm_pipeline.sh /data/bids /data/bids/derivatives/imt \
#         --translate T1-T2 T1-FLAIR --segment tissue --evaluate
#
# INPUT, OUTPUT and the models must lie where all nodes see them. Submit the same line again after a time limit or a
# failure: what is finished is skipped. Logs of cases: OUTPUT/logs, the report: OUTPUT/report.html.
#
# On one node there is no need of this file: sbatch --cpus-per-task=16 --wrap "imt pipeline INPUT --output OUTPUT ... --workers 8".
# With GPUs add --gres=gpu:N: the workers of a node take turns on each GPU, and do other stages meanwhile.
#
# IMT_ENV: the folder of the Python environment that has imt and dask[distributed] (default: what is on the PATH).
#
#SBATCH --job-name=imt-pipeline
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@60

set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: sbatch slurm_pipeline.sh INPUT OUTPUT [options of imt pipeline]" >&2
    exit 2
fi
input=$1 output=$2
shift 2
if [ -n "${IMT_ENV:-}" ]; then
    PATH="$IMT_ENV/bin:$PATH"
fi

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
# One case at a time in a worker; a case whose worker was killed is tried once more.
export DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION=1.0
export DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=1

address_file="$PWD/imt-scheduler-$SLURM_JOB_ID.json"
log="imt-dask-$SLURM_JOB_ID.log"
dask scheduler --port 0 --no-dashboard --scheduler-file "$address_file" >"$log" 2>&1 &
scheduler=$!
workers='' pipeline=''
finish() {
    kill $scheduler $workers 2>/dev/null || true
    rm -f "$address_file"
}
trap finish EXIT
# Before the time limit: imt ends in good order, and a new job goes on.
trap '[ -z "$pipeline" ] || kill -TERM "$pipeline"' TERM

for _ in $(seq 60); do
    [ -s "$address_file" ] && break
    sleep 1
done
address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$address_file")

srun --kill-on-bad-exit=0 dask worker --scheduler-file "$address_file" --nworkers 1 --nthreads 1 --no-dashboard \
    --local-directory "${TMPDIR:-/tmp}" --death-timeout 60 >>"$log" 2>&1 &
workers=$!

imt pipeline "$input" --output "$output" --scheduler "$address" --progress none "$@" &
pipeline=$!
code=0
wait "$pipeline" || code=$?
if [ $code -gt 128 ] && kill -0 "$pipeline" 2>/dev/null; then # the trap woke us: wait for its end
    code=0
    wait "$pipeline" || code=$?
fi
exit $code
