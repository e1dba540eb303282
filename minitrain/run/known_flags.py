"""Answers to flags of other programs: the name here, or what to do instead.

They cover transformers' TrainingArguments (5.23), run_glue.py and run_classification.py, accelerate's examples, and
common guesses. A script gives an answer only if it has the flags that the answer names.
"""

from collections.abc import Mapping

from minitrain.config.train_config import FORMER_NAMES


def _by_flag(flags: Mapping[str, str]) -> dict[str, str]:
    """{"model": "tokenizer base_model"} -> {"tokenizer": "model", "base_model": "model"}"""
    return {flag: answer for answer, names in flags.items() for flag in names.split()}


# The flag here: its names elsewhere.
RENAMED = FORMER_NAMES | _by_flag(
    {
        "eval_strategy": "evaluation_strategy",
        "model": "model_name_or_path model_name base_model tokenizer tokenizer_name processing_class",
        "dataset": "dataset_name data",
        "subset": "dataset_config_name task_name",
        "eval_file": "validation_file valid_file dev_file eval_data val_file",
        "train_file": "train_data",
        "max_length": "max_seq_length",
        "per_device_train_batch_size": "per_gpu_train_batch_size train_batch_size batch_size",
        "per_device_eval_batch_size": "per_gpu_eval_batch_size eval_batch_size",
        "global_batch_size": "total_train_batch_size",
        "num_train_epochs": "num_epochs epochs",
        "learning_rate": "lr",
        "lr_scheduler_type": "lr_scheduler scheduler",
        "warmup_steps": "warmup_ratio num_warmup_steps",
        "label_smoothing_factor": "label_smoothing",
        "max_grad_norm": "gradient_clipping clip_grad_norm",
        "optim": "optimizer",
        "hidden_dropout_prob": "dropout",
        "early_stopping_patience": "patience",
        "sampler": "group_by_length train_sampling_strategy shuffle_train_dataset",
        "device": "no_cuda use_cpu use_mps_device gpu cuda",
        "max_eval_samples": "max_validation_samples",
        "resume": "resume_from_checkpoint",
        "new_head": "ignore_mismatched_sizes",
        "problem_type": "do_regression",
        "text_columns": "text_column_names text_column_name text_column",
        "label_column": "label_column_name",
        "output_dir": "save_dir",
        "join": "text_column_delimiter",
        "delimiter": "sep separator",
        "quoting": "quotechar",
        "eval_fraction": "validation_split val_split test_size",
        "label_map": "id2label",
        "input": "input_file",
        "output": "output_file",
        "output_format": "format",
    }
)

# What to do: flags without an equivalent.
ANSWERS = _by_flag(
    {
        "a schedule has --lr_scheduler_type and --warmup_steps only": "lr_scheduler_kwargs",
        "AdamW has --adam_beta1, --adam_beta2, --adam_epsilon and --weight_decay": (
            "optim_args optim_target_modules"
        ),
        "the loss is the mean over the examples of all processes": "average_tokens_across_devices",
        "--bf16 computes in bfloat16, evaluations too, and needs no loss scaling": (
            "fp16 fp16_opt_level half_precision_backend mixed_precision bf16_full_eval fp16_full_eval"
        ),
        "--bf16 is the fast arithmetic of a GPU": "tf32",
        "to save memory, lower --per_device_train_batch_size and raise --gradient_accumulation_steps": (
            "activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing "
            "gradient_checkpointing_kwargs auto_find_batch_size torch_empty_cache_steps"
        ),
        "--torch_compile uses PyTorch's defaults": "torch_compile_backend torch_compile_mode",
        "--kernels fast, the default, has its own optimizations": "use_liger_kernel liger_kernel_config",
        "an encoder has no key-value cache": "use_cache",
        "there is no equivalent": "neftune_noise_alpha include_num_input_tokens_seen",
        "--logging_steps N sets the interval, by default 1% of the run": "logging_strategy",
        "the first step is always logged": "logging_first_step",
        "only rank 0 prints": "log_on_each_node log_level_replica",
        "a loss that is NaN or infinite ends the run with an error": "logging_nan_inf_filter",
        "> /dev/null leaves errors only, and without a terminal (2>&1 | cat) there is no progress bar": (
            "log_level disable_tqdm quiet silent"
        ),
        "log.jsonl in the run's folder has every logged step and evaluation, one JSON object per line": (
            "report_to run_name project logging_dir trackio_space_id trackio_bucket_id trackio_static_space_id "
            "with_tracking wandb tensorboard"
        ),
        "--eval_strategy epoch, or steps with --eval_steps N, says when to evaluate": "eval_delay eval_on_start",
        "an evaluation always computes loss and metrics": "prediction_loss_only",
        "metrics are computed from sums over all rows, whatever the batches": (
            "eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics "
            "include_inputs_for_metrics batch_eval_metrics"
        ),
        "the run's folder has the model only; checkpoints/ has what --resume needs": "save_only_model",
        "weights are always saved as safetensors": "save_safetensors",
        "only rank 0 saves": "save_on_each_node",
        "Ctrl-C and SIGTERM always save a checkpoint": "enable_jit_checkpoint",
        "the run's folder can be uploaded as it is: hf upload USER/NAME FOLDER": (
            "push_to_hub hub_model_id hub_strategy hub_always_push hub_private_repo hub_revision"
        ),
        "set HF_TOKEN in the environment, or run hf auth login": "hub_token token use_auth_token",
        "--resume continues at the row where the run stopped, at no cost": "ignore_data_skip",
        "--resume restores the whole state": "restore_callback_states_from_checkpoint",
        "on a CPU, the same --seed and number of threads give the same bits": "full_determinism",
        "each process holds the whole model; torchrun --nproc_per_node N divides the batch": (
            "accelerator_config parallelism_config fsdp fsdp_config deepspeed"
        ),
        "torchrun --nproc_per_node N sets the local ranks": "local_rank",
        "torchrun --nproc_per_node N starts the processes": "num_processes",
        "all rows are tokenized before the first step, so there are no data loader workers": (
            "dataloader_num_workers dataloader_persistent_workers dataloader_prefetch_factor "
            "dataloader_multiprocessing_context dataloader_in_order preprocessing_num_workers num_workers"
        ),
        "batches for a GPU are always pinned": "dataloader_pin_memory",
        "only --text_columns and --label_column are used": "remove_unused_columns",
        "--label_column names the column of labels; class names come from the data": "label_names",
        "--sampler bucket sorts by length in tokens": "length_column_name",
        "DistributedDataParallel runs with PyTorch's defaults, over gloo (CPU) or NCCL (GPU)": (
            "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend"
        ),
        "--profile shows where the time goes; a NaN loss is reported with its rows": "debug",
        "peak memory is read once, at the end": "skip_memory_metrics",
        "train.py always trains; evaluate.py and predict.py take its folder": "do_train",
        "predict.py FOLDER labels new texts": "do_predict",
        "a cache entry is used only for the same rows and tokenizer": "overwrite_cache",
        "a batch is padded to its longest text, rounded up by --pad_to_multiple_of": "pad_to_max_length",
        "config.json is read from --model": "config_name",
        "set HF_HOME in the environment to choose where downloads go": "cache_dir",
        "all tokenizers are fast ones": "use_fast_tokenizer",
        "code from a repository is never run": "trust_remote_code",
        "the labels decide the metrics; --metric_for_best_model chooses one to compare by": "metric_name",
        "the training data decide the number of labels": "num_labels",
        "a run prints everything already, and log.jsonl has the numbers": "verbose",
        "pip show minitrain prints it, and so does the first line of a run": "version",
        "in a loop of your own, call parameter.requires_grad_(False)": "freeze freeze_encoder freeze_layers",
        "in a loop of your own, call torch.nn.functional.cross_entropy(logits, labels, weight=...)": (
            "class_weights class_weight"
        ),
        "in a loop of your own, wrap the model in peft.get_peft_model": "lora use_peft",
        "there are no configuration files; keep the command in a script": "config config_file",
        "--text_columns names columns; predict.py reads texts from standard input": "text",
        "each text has one label": "multi_label",
        "--examples sets the training rows of each of the two epochs, 8 a step": (
            "max_steps num_train_epochs max_train_samples"
        ),
    }
)
