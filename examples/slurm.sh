#!/bin/bash
# Trains a recipe on several nodes of eight GPUs, and goes on after every preemption:
#   sbatch --nodes 2 examples/slurm.sh owt-flow
# Prepare the corpus once before (flowlm prepare openwebtext), on a disk that all nodes see.
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300

recipe=$1
shift
what="$recipe $*"
if compgen -G "runs/$recipe/checkpoints/step-*" > /dev/null; then
    what="--resume runs/$recipe"
fi
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# SIGTERM, 300 seconds before the end, finishes the step and saves; the status is then not 0.
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 \
    --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m flowlm train $what
status=$?
if [ $status -ne 0 ] && compgen -G "runs/$recipe/checkpoints/step-*" > /dev/null; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
