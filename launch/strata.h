#pragma once

// Everything a training script needs: `#include "launch/strata.h"`, then link strata::strata.

#include "checkpoint/pretrained_model.h"
#include "core/model/block.h"
#include "core/model/config.h"
#include "core/model/graph.h"
#include "core/model/transformer.h"
#include "core/text/chat_template.h"
#include "core/text/dataset.h"
#include "core/text/open_data.h"
#include "core/text/tokenizer.h"
#include "core/trace.h"
#include "core/units.h"
#include "launch/generation/generation_config.h"
#include "launch/generation/prompts.h"
#include "launch/generation/stop_text.h"
#include "launch/runtime.h"
#include "launch/training.h"
#include "parallel/generator.h"
#include "parallel/text_generation.h"
#include "parallel/trainer.h"
