#include "swap/io_engine.h"
