"""Answers to flags of other programs: the name here, or what to do instead.

They cover transformers' TrainingArguments (5.23), run_glue.py and run_classification.py, accelerate's examples, and
common guesses. A script gives an answer only if it has the flags that the answer names.
"""

import re

from minitrain.config.train_config import FORMER_NAMES


def _by_flag(table: str) -> dict[str, str]:
    """lr: learning_rate -> {"lr": "learning_rate"}; an indented line continues the one before."""
    entries = (entry.split(":", 1) for entry in re.split(r"\n(?=\w)", table.strip()))
    return {flag: " ".join(answer.split()) for flags, answer in entries for flag in flags.split()}


# Names elsewhere: the flag here.
RENAMED = FORMER_NAMES | _by_flag("""
evaluation_strategy: eval_strategy
model_name_or_path model_name base_model tokenizer tokenizer_name processing_class: model
dataset_name data: dataset
dataset_config_name task_name: subset
validation_file valid_file dev_file eval_data val_file: eval_file
train_data: train_file
max_seq_length: max_length
truncation_side truncation_strategy truncation sliding_window return_overflowing_tokens: long_texts
doc_stride: stride
per_gpu_train_batch_size train_batch_size batch_size: per_device_train_batch_size
per_gpu_eval_batch_size eval_batch_size: per_device_eval_batch_size
total_train_batch_size: global_batch_size
num_epochs epochs: num_train_epochs
lr: learning_rate
llrd lr_decay layer_decay layerwise_learning_rate_decay: layerwise_lr_decay
head_lr classifier_learning_rate: head_learning_rate
freeze_layers: freeze
lr_scheduler scheduler: lr_scheduler_type
warmup_ratio num_warmup_steps: warmup_steps
label_smoothing: label_smoothing_factor
class_weight: class_weights
gradient_clipping clip_grad_norm: max_grad_norm
optimizer: optim
activation_checkpointing: gradient_checkpointing
dropout: hidden_dropout_prob
patience: early_stopping_patience
train_sampling_strategy shuffle_train_dataset: sampler
use_mps_device gpu cuda: device
max_validation_samples: max_eval_samples
resume_from_checkpoint: resume
ignore_mismatched_sizes: new_head
do_regression: problem_type
text_column_names text_column_name text_column: text_columns
label_column_name: label_column
save_dir: output_dir
hub_model_id push_to_hub_model_id: push_to_hub
hub_private_repo: hub_private
wandb_project project_name experiment_name: project
text_column_delimiter: join
sep separator: delimiter
quotechar: quoting
validation_split val_split test_size: eval_fraction
id2label: label_map
input_file: input
output_file: output
format: output_format
num_folds n_folds k_folds kfold cv n_splits cross_validation: folds
groups group group_by: group_column
num_seeds random_seeds: seeds
temperature_scaling calibration: calibrate
""")

# Flags without an equivalent: what to do.
ANSWERS = _by_flag("""
lr_scheduler_kwargs: a schedule has --lr_scheduler_type and --warmup_steps only
optim_args optim_target_modules: AdamW has --adam_beta1, --adam_beta2, --adam_epsilon and --weight_decay
average_tokens_across_devices: the loss is the mean over the examples of all processes
fp16_opt_level half_precision_backend mixed_precision bf16_full_eval fp16_full_eval:
    --bf16 or --fp16 computes in 16 bits, evaluations too
no_cuda use_cpu: --device cpu leaves a GPU alone
tf32: --bf16 is the fast arithmetic of a GPU
activation_checkpointing_kwargs gradient_checkpointing_kwargs:
    --gradient_checkpointing computes every block again and has no settings
auto_find_batch_size torch_empty_cache_steps:
    --gradient_checkpointing saves memory, as does a smaller --per_device_train_batch_size
torch_compile_backend torch_compile_mode: --torch_compile uses PyTorch's defaults
use_liger_kernel liger_kernel_config: --kernels fast, the default, has its own optimizations
use_cache: an encoder has no key-value cache
neftune_noise_alpha include_num_input_tokens_seen: there is no equivalent
logging_strategy: --logging_steps N sets the interval, by default 1% of the run
logging_first_step: the first step is always logged
log_on_each_node log_level_replica: only rank 0 prints
logging_nan_inf_filter: a loss that is NaN or infinite ends the run with an error
log_level disable_tqdm quiet silent:
    > /dev/null leaves errors only, and without a terminal (2>&1 | cat) there is no progress bar
with_tracking wandb tensorboard mlflow trackio:
    --report_to names trackers: tensorboard, trackio, wandb, mlflow
logging_dir: --report_to tensorboard writes into the folder of the run
trackio_space_id trackio_bucket_id trackio_static_space_id:
    --report_to trackio writes to this machine, or to the Space that TRACKIO_SPACE_ID in the environment names
eval_delay eval_on_start: --eval_strategy epoch, or steps with --eval_steps N, says when to evaluate
prediction_loss_only: an evaluation always computes loss and metrics
eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics
    include_inputs_for_metrics batch_eval_metrics:
    metrics are computed from sums over all rows, whatever the batches
save_only_model: the run's folder has the model only; checkpoints/ has what --resume needs
save_safetensors: weights are always saved as safetensors
save_on_each_node: only rank 0 saves
enable_jit_checkpoint: Ctrl-C and SIGTERM always save a checkpoint
hub_strategy hub_always_push hub_revision:
    --push_to_hub OWNER/NAME uploads once, at the end of the run, to the main branch
hub_token token use_auth_token: set HF_TOKEN in the environment, or run hf auth login
ignore_data_skip: --resume continues at the row where the run stopped, at no cost
restore_callback_states_from_checkpoint: --resume restores the whole state
full_determinism: on a CPU, the same --seed and number of threads give the same bits
accelerator_config parallelism_config fsdp fsdp_config deepspeed:
    each process holds the whole model; torchrun --nproc_per_node N divides the batch
local_rank: torchrun --nproc_per_node N sets the local ranks
num_processes: torchrun --nproc_per_node N starts the processes
dataloader_num_workers dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order preprocessing_num_workers num_workers:
    all rows are tokenized before the first step, so there are no data loader workers
dataloader_pin_memory: batches for a GPU are always pinned
remove_unused_columns: only --text_columns and --label_column are used
label_names: --label_column names the column of labels; class names come from the data
group_by_length length_column_name: --sampler bucket sorts by length in tokens
ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend:
    DistributedDataParallel runs with PyTorch's defaults, over gloo (CPU) or NCCL (GPU)
debug: --profile shows where the time goes; a NaN loss is reported with its rows
skip_memory_metrics: peak memory is read once, at the end
do_train: train.py always trains; evaluate.py and predict.py take its folder
do_predict: predict.py FOLDER labels new texts
overwrite_cache: a cache entry is used only for the same rows and tokenizer
pad_to_max_length: a batch is padded to its longest text, rounded up by --pad_to_multiple_of
config_name: config.json is read from --model
cache_dir: set HF_HOME in the environment to choose where downloads go
use_fast_tokenizer: all tokenizers are fast ones
trust_remote_code: code from a repository is never run
metric_name: --metrics names them; --metric_for_best_model chooses one to compare by
num_labels: the training data decide the number of labels
verbose: a run prints everything already, and log.jsonl has the numbers
version: pip show minitrain prints it, and so does the first line of a run
freeze_encoder: pass --freeze encoder, or --freeze N for the lowest N layers
freeze_embeddings: pass --freeze embeddings
lora use_peft: in a loop of your own, wrap the model in peft.get_peft_model
config config_file: there are no configuration files; keep the command in a script
text: --text_columns names columns; predict.py reads texts from standard input
multi_label: pass --problem_type multi_label_classification, and --label_separator or --label_columns if they apply
max_steps num_train_epochs max_train_samples: --examples sets the training rows of each of the two epochs, 8 a step
""")
