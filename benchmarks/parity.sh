#!/usr/bin/env bash
# Every whole run that is compared with the references, into benchmarks/parity/, and the ladder: two hours on two
# cores. GLUE names the dataset: nyu-mll/glue, or a local copy of it. What is there and equal is not repeated.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
out=benchmarks/parity
three=runs/three-classes
several=runs/multi-label
failed=0

compare() {
    local name=$1
    shift
    grep -qs '"all_equal": true' "$out/$name.json" || "$python" scripts/parity.py --model demo --json "$out/$name.json" "$@" || failed=1
}

glue="--dataset ${GLUE:-nyu-mll/glue}"
mrpc="$glue --subset mrpc"
epoch="--num_train_epochs 1"

# shellcheck disable=SC2086  # the words are meant to be split
{
    compare mrpc-seed42 $mrpc --seed 42
    compare stsb $glue --subset stsb $epoch
    compare decay-warmup-cosine $mrpc $epoch --weight_decay 0.01 --warmup_steps 46 --lr_scheduler_type cosine
    compare label-smoothing $mrpc $epoch --label_smoothing_factor 0.1
    compare class-weights $mrpc $epoch --class_weights balanced
    compare class-weights-accumulation $mrpc $epoch --class_weights balanced --per_device_train_batch_size 4 \
        --gradient_accumulation_steps 2
    compare layer-rates $mrpc $epoch --layerwise_lr_decay 0.9 --head_learning_rate 1e-3 --weight_decay 0.01
    compare frozen $mrpc $epoch --freeze 4 --layerwise_lr_decay 0.9
    compare batch16-length64 $mrpc $epoch --per_device_train_batch_size 16 --max_length 64
    compare evaluation-every-50 $mrpc $epoch --eval_strategy steps --eval_steps 50
    compare accumulation $mrpc $epoch --per_device_train_batch_size 4 --gradient_accumulation_steps 4
    compare bf16 $mrpc $epoch --bf16
    compare accelerate $mrpc $epoch --match_accelerate --learning_rate 2e-5 --weight_decay 0.01 \
        --warmup_steps 100 --per_device_train_batch_size 16 --per_device_eval_batch_size 32
    compare single-sentence --dataset demo $epoch
    "$python" benchmarks/three_classes.py "$three"
    compare class-weights-three-classes --train_file "$three/train.csv" --eval_file "$three/validation.csv" $epoch \
        --class_weights negative=2,neutral=0.5,positive=1.25
    compare three-classes --train_file "$three/train.csv" --eval_file "$three/validation.csv" $epoch
    "$python" benchmarks/multi_label.py "$several"
    compare multi-label --train_file "$several/train.jsonl" --eval_file "$several/validation.jsonl" $epoch
    compare multi-label-accumulation --train_file "$several/train.csv" --eval_file "$several/validation.csv" \
        --label_separator , $epoch --per_device_train_batch_size 4 --gradient_accumulation_steps 4
    compare multi-label-columns --train_file "$several/train-columns.csv" \
        --eval_file "$several/validation-columns.csv" --label_columns actors,asks,long,positive,strong $epoch
    compare mrpc-seed1 $mrpc --seed 1
    compare mrpc-seed2 $mrpc --seed 2
    compare mrpc-adamw_torch $mrpc --optim adamw_torch
    "$python" scripts/ladder.py --model demo $mrpc --json benchmarks/ladder.json || failed=1
}
exit "$failed"
