#include "optimizer/update_rule.h"
