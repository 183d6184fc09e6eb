#include "launch/doctor.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <set>

namespace strata {
namespace {

using Status = Finding::Status;

TEST(Doctor, LooksAtEverythingStrataDependsOn) {
  std::set<std::string> subjects;
  for (const Finding& finding : examine_machine()) {
    subjects.insert(finding.subject);
    EXPECT_FALSE(finding.fact.empty()) << finding.subject;
    EXPECT_TRUE(finding.status == Status::kGood || !finding.advice.empty())
        << finding.subject << ": a problem comes with what to do";
  }
  EXPECT_EQ(subjects, (std::set<std::string>{"GPU", "MPI", "cores", "energy", "io_uring",
                                             "locked memory", "memory", "processor"}));
}

TEST(Doctor, NoticesABoundProcessAndAQuota) {
  EXPECT_EQ(judge_cores(8, 8, 0).status, Status::kGood);
  EXPECT_EQ(judge_cores(1, 8, 0).status, Status::kSlow);
  EXPECT_NE(judge_cores(1, 8, 0).advice.find("--bind auto"), std::string::npos);
  EXPECT_EQ(judge_cores(8, 8, 2.5).status, Status::kSlow);
  EXPECT_NE(judge_cores(8, 8, 2.5).advice.find("OMP_NUM_THREADS=2"), std::string::npos);
  EXPECT_EQ(judge_cores(2, 2, 2).status, Status::kGood);
}

TEST(Doctor, KnowsHowMuchLockedMemoryIsEnough) {
  EXPECT_EQ(judge_locked_memory(RLIM_INFINITY, false).status, Status::kGood);
  EXPECT_EQ(judge_locked_memory(8 << 20, true).status, Status::kGood);
  EXPECT_EQ(judge_locked_memory(8 << 20, false).status, Status::kSlow);
  EXPECT_NE(judge_locked_memory(8 << 20, false).fact.find("8 MiB"), std::string::npos);
}

TEST(Doctor, JudgesWhereSwapFilesWouldLie) {
  DirectoryFacts facts{.path = "/nvme0",
                       .filesystem = "ext4",
                       .free_bytes = 1ull << 40,
                       .takes_direct_io = true,
                       .memory_alignment = 4,
                       .offset_alignment = 512,
                       .block_device = "nvme0n1",
                       .wear = {}};
  EXPECT_EQ(judge_swap(facts).status, Status::kGood);
  EXPECT_EQ(judge_swap(facts).fact,
            "ext4 on nvme0n1, 1 TiB free, direct I/O aligned to 512 B (memory 4 B)");
  facts.wear = 0.95;
  EXPECT_NE(judge_swap(facts).advice.find("replace"), std::string::npos);
  facts.offset_alignment = 65536;
  EXPECT_EQ(judge_swap(facts).status, Status::kBroken);
  facts.takes_direct_io = false;
  EXPECT_EQ(judge_swap(facts).status, Status::kSlow);
  facts.is_tmpfs = true;
  EXPECT_NE(judge_swap(facts).advice.find("memory"), std::string::npos);
}

TEST(Doctor, FindsADirectoryThatCannotHoldSwapFilesBroken) {
  const Finding finding = examine_swap("/proc/nowhere");
  EXPECT_EQ(finding.status, Status::kBroken);
  EXPECT_NE(finding.fact.find("/proc/nowhere"), std::string::npos);
  EXPECT_FALSE(finding.advice.empty());
}

TEST(Doctor, ListsTheMatrixUnitsOfTheProcessor) {
  EXPECT_EQ(judge_processor("X", "fpu avx2 avx512f avx512_bf16 amx_bf16").fact,
            "X; of AMX, AVX512_BF16, AVX-512 and AVX2: AMX, AVX512_BF16, AVX-512, AVX2");
  EXPECT_NE(judge_processor("X", "fpu avx2").advice.find("--compute fp32"), std::string::npos);
  EXPECT_EQ(judge_processor("X", "fpu avx2x").status, Status::kSlow)
      << "a part of a name is no name";
}

}  // namespace
}  // namespace strata
