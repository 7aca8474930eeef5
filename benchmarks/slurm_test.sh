#!/bin/bash
# Tests train.job on a real Slurm: a cluster of one node, on the loopback interface only, which is
# started here and stopped again. All files are in a temporary directory. Takes about 5 minutes.
#
#     benchmarks/slurm_test.sh
#
# The virtual environment is $PYTHON_ENV, else $VIRTUAL_ENV, else .venv of the repository.
# Exit status 0: all tests passed, 1: one failed, 77: Slurm is not installed, nothing was tested.
set -u
export PATH=$PATH:/usr/sbin:/sbin
repository=$(realpath "$(dirname "$0")/..")
export VIRTUAL_ENV=${PYTHON_ENV:-${VIRTUAL_ENV:-$repository/.venv}}
python=$VIRTUAL_ENV/bin/python
"$python" -c "import torch" || exit 1

skip() { echo "skipped: $*"; exit 77; }

# fail NAME JOB WHY: the test failed; shows the end of what the job printed.
fail() { echo "FAILED: $1: $3"; tail -n 20 "slurm_output_$(id_of "$2").out"; exit 1; }

# await SECONDS COMMAND...: waits until the command succeeds, no longer than that.
await() {
    local end=$((SECONDS + $1))
    until "${@:2}"; do [ "$SECONDS" -lt "$end" ] && sleep 0.5 || return; done
}

# ---- Slurm ------------------------------------------------------------------------------------

programs=(munged slurmctld slurmd sbatch)
if ! type "${programs[@]}" &>/dev/null && [ "$(id -u)" -eq 0 ]; then
    { apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq -y install slurm-wlm munge; } &>/dev/null
fi
type "${programs[@]}" &>/dev/null || skip "Slurm is not installed: apt-get install slurm-wlm munge"

unset "${!SLURM_@}" "${!SBATCH_@}"  # this may itself run in a job
tmp=$(mktemp -d)
export SLURM_CONF=$tmp/slurm.conf
daemons=()
stop() {
    kill -0 "${daemons[1]:-none}" && timeout 40 bash -c '
        scancel --me
        while squeue -h | grep -q .; do sleep 0.2; done'
    kill "${daemons[@]}"
    wait
    rm -rf "$tmp"
} &>/dev/null
trap stop EXIT

host=$(uname -n)
host=${host%%.*}
ports=$("$python" -c "
import socket
sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))")
mkdir "$tmp"/{state,spool,jobs}
touch "$tmp"/gpu{0..7}  # any file can stand for a GPU: nothing here computes on one
echo "Name=gpu File=$tmp/gpu[0-7]
Name=seat Count=1" > "$tmp/gres.conf"
cat > "$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports% *}
SlurmdPort=${ports#* }
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
# cred_expire is also how many seconds a requeued job waits; the default is 120.
AuthInfo=socket=$tmp/munge.socket,cred_expire=5
StateSaveLocation=$tmp/state
SlurmdSpoolDir=$tmp/spool
SlurmctldPidFile=$tmp/slurmctld.pid
SlurmdPidFile=$tmp/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=3600
# More CPUs than the machine may have: the jobs share them.
SlurmdParameters=config_overrides
GresTypes=gpu,seat
NodeName=$host NodeAddr=127.0.0.1 CPUs=64 Gres=gpu:8,seat:1
PartitionName=main Nodes=ALL PreemptMode=OFF
PartitionName=gpu_shared Nodes=ALL PreemptMode=OFF
PartitionName=low Nodes=ALL PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2
END
# Slurm 23.02 and later need to be told not to use control groups; 22.05 rejects the line.
[ "$(slurmd -V | grep -o "[0-9]*" | head -n 1)" -lt 23 ] ||
    echo "CgroupPlugin=disabled" > "$tmp/cgroup.conf"

chmod 755 "$tmp"  # munged requires a socket that everybody can reach
(umask 077 && head -c 128 /dev/urandom > "$tmp/munge.key")
munged --foreground --key-file="$tmp/munge.key" --socket="$tmp/munge.socket" \
    --pid-file="$tmp/munged.pid" --seed-file="$tmp/munge.seed" &>"$tmp/munged.log" &
daemons+=($!)
await 10 test -S "$tmp/munge.socket" || skip "munged: $(tail -n 1 "$tmp/munged.log")"
slurmctld -D &>"$tmp/slurmctld.log" &
daemons+=($!)
slurmd -D &>"$tmp/slurmd.log" &
daemons+=($!)
node_is_idle() { timeout 5 sinfo -h -o %T 2>/dev/null | grep -qx idle; }
await 20 node_is_idle || skip "Slurm does not start: $(tail -qn 1 "$tmp"/slurm{ctld,d}.log | xargs)"

# ---- The jobs: submitted from a copy of the repository, whose path has a space in it ------------

mkdir "$tmp/the repository" "$tmp/conda"
cp -r "$repository"/{*.py,train.job,data,pretrained} "$tmp/the repository"
ln -s "$tmp/the repository"/* "$tmp/conda"
ln -s "$VIRTUAL_ENV" "$tmp/the repository/.venv"
cd "$tmp/the repository" || exit
export OMP_NUM_THREADS=1  # the jobs run side by side
script=train.job
small=(--device cpu --hidden_dims_gen 64 --hidden_dims_disc 64 --save_every 1)

# value JOB NAME: one of the values that scontrol shows.
value() { scontrol -o show job "$1" | sed -n "s/.* $2=\([^ ]*\).*/\1/p"; }
# id_of JOB: the job's own number, that of a task of an array, too.
id_of() { scontrol -o show job "$1" | sed -n "s/^JobId=\([0-9]*\).*/\1/p"; }
trains() { [ -f "GAN_logs/job_$1/samples_epoch_0001.png" ]; }
restarted() { [ "$(value "$1" Restarts)" -gt 0 ]; }
is_over() { [[ $(value "$1" JobState) == @(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL) ]]; }

# ends NAME JOB STATE EXIT_CODE: the job ends in this state.
ends() {
    : "${2:?"$1: sbatch failed"}"
    await 900 is_over "$2"
    [ "$(value "$2" JobState) $(value "$2" ExitCode)" = "$3 $4:0" ] && return
    fail "$1" "$2" "ended as $(value "$2" JobState) with $(value "$2" ExitCode), not $3 $4:0"
}

# fails_at_once NAME JOB EXIT_CODE TEXT: prints one line with the text, is not requeued.
fails_at_once() {
    ends "$1" "$2" FAILED "$3"
    [ "$(wc -l < "slurm_output_$2.out")" -eq 1 ] || fail "$1" "$2" "printed more than one line"
    grep -q "$4" "slurm_output_$2.out" || fail "$1" "$2" "does not say $4"
    [ "$(value "$2" Restarts)" -eq 0 ] || fail "$1" "$2" "was requeued"
    echo "ok: $1: $(cat "slurm_output_$2.out")"
}

# same_weights NAME JOB: it was restarted, went on with its run, and ended as $whole did.
same_weights() {
    ends "$1" "$2" COMPLETED 0
    restarted "$2" || fail "$1" "$2" "was not restarted"
    "$python" -c '
import sys, torch
runs = [torch.load(f"{run}/checkpoints/model_checkpoint.pt") for run in sys.argv[1:]]
for part in "generator", "discriminator", "averaged", "optimizer_gen", "optimizer_disc":
    torch.testing.assert_close(runs[0][part], runs[1][part], rtol=0, atol=0)
' GAN_logs/job_{"$whole","$2"} || fail "$1" "$2" "ended with other weights than $whole"
    echo "ok: $1: restarted $(value "$2" Restarts)x, weights equal"
}

job=$(sbatch --parsable --partition=main --gpus=0 "$script" --epochs 3 "${small[@]}")
ends "one job" "$job" COMPLETED 0
grep -q "epoch   3/3" "slurm_output_$job.out" || fail "one job" "$job" "no line about the epoch"
[ "$(wc -l < "slurm_output_$job.out")" -lt 40 ] || fail "one job" "$job" "prints too much"
trains "$job" || fail "one job" "$job" "no logs in the directory it was submitted from"
echo "ok: one job: $(grep "epoch   3/3" "slurm_output_$job.out")"
more=$(sbatch --parsable --gpus=0 "$script" --name "job_$job" --epochs 4 --device cpu)
ends "more epochs" "$more" COMPLETED 0
grep -q "^3 of 4 epochs done" "slurm_output_$more.out" || fail "more epochs" "$more" "another run"
grep -q "epoch   4/4" "slurm_output_$more.out" || fail "more epochs" "$more" "--name has no effect"
echo "ok: more epochs: $(grep "epoch   4/4" "slurm_output_$more.out")"

# So many epochs that six jobs side by side take 160 seconds: the warning comes 60 to 90 seconds
# before the time limit of 3 minutes.
seconds=$(grep -o "[0-9.]* s/epoch" "slurm_output_$job.out" | tail -n 1)
alone=$((160 * ($(nproc) < 6 ? $(nproc) : 6) / 6))
epochs=$(awk "BEGIN {print int($alone / (0.01 + ${seconds% s/epoch}))}")
long=(--epochs "$epochs" "${small[@]}")
whole=$(sbatch --parsable "$script" "${long[@]}" --seed 8)
limit=$(sbatch --parsable "$script" "${long[@]}" --seed 8)
requeue=$(sbatch --parsable "$script" "${long[@]}" --seed 8)
preempt=$(sbatch --parsable --partition=low --gres=seat "$script" "${long[@]}" --seed 8)
array=$(sbatch --parsable --array=7-8 "$script" "${long[@]}" --seed 1 --name all_in_one)

cd "$tmp/conda" || exit
job=$(PATH=$VIRTUAL_ENV/bin:$PATH sbatch --parsable "$script" --epochs 1 "${small[@]}")
ends "active environment, as of conda" "$job" COMPLETED 0
echo "ok: active environment, as of conda"
cd "$tmp/jobs" || exit
job=$(sbatch --parsable "$tmp/the repository/train.job")
fails_at_once "submitted from elsewhere" "$job" 2 "train_torch.py"
cd "$tmp/the repository" || exit
job=$(sbatch --parsable "$script" "${small[@]}" --lr 5)
fails_at_once "bad flag" "$job" 2 "lr"
mkdir -p nothing/MNIST/raw
touch nothing/MNIST/raw/train-{images-idx3,labels-idx1}-ubyte.gz
job=$(sbatch --parsable "$script" "${small[@]}" --data_dir nothing)
fails_at_once "no data" "$job" 1 "nothing/MNIST/raw"

for job in "$array"_{7,8} "$whole" "$limit" "$requeue" "$preempt"; do
    await 300 trains "$job" || fail "training" "$job" "does not begin"
done
scontrol update JobId="$limit" TimeLimit=3  # minutes
scontrol requeue "$requeue"
urgent=$(sbatch --parsable -o slurm_output_%A.out -p urgent --gres=seat --wrap="sleep 3")
scancel --batch --signal=USR1 "${array}_8"  # whose own number is that of the array
await 150 restarted "$limit" || fail "time limit" "$limit" "was not requeued"
scontrol update JobId="$limit" TimeLimit=60

ends "preemption" "$urgent" COMPLETED 0
ends "uninterrupted" "$whole" COMPLETED 0
same_weights "time limit" "$limit"
same_weights "requeue" "$requeue"
same_weights "preemption" "$preempt"
same_weights "array, a task requeued" "${array}_8"
ends "array" "${array}_7" COMPLETED 0
restarted "${array}_7" && fail "array" "${array}_7" "the other task was restarted, too"
seeds=$(grep -h '"seed"' GAN_logs/job_"${array}"_{7,8}/args.json | xargs)
[ "$seeds" = "seed: 7, seed: 8," ] || fail "array" "$array" "has $seeds"
[ ! -e GAN_logs/all_in_one ] || fail "array" "$array" "a flag has put all tasks into one run"
for task in "$array"_{7,8}; do
    starts=$(grep -c " in .*GAN_logs/job_$task$" "slurm_output_$(id_of "$task").out")
    [ "$starts" -eq $((1 + $(value "$task" Restarts))) ] ||
        fail "array" "$task" "the tasks write into the same file"
done
echo "ok: array: $seeds in run directories and output files of their own"

job=$(SLURM_RESTART_COUNT=20 sbatch --parsable "$script" --epochs 20 "${small[@]}")
await 300 trains "$job" || fail "often restarted" "$job" "does not begin"
scancel --batch --signal=USR1 "$job"
ends "often restarted" "$job" COMPLETED 0
grep -q "^not requeued after 20 restarts" "slurm_output_$job.out" ||
    fail "often restarted" "$job" "was requeued once more"
echo "ok: often restarted: $(grep "^not requeued" "slurm_output_$job.out")"
