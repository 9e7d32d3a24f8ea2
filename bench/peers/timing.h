// What the bench programs share: the command line, and how a measurement is printed.
//   PROGRAM [rank worldSize rendezvous] iterations warmups bytes...
#pragma once
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace timing {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Small transfers are repeated more often: their times scatter more.
inline int repetitions(int iterations, size_t bytes) {
  if (bytes <= (64u << 10)) return iterations * 40;
  if (bytes <= (4u << 20)) return iterations * 8;
  return iterations;
}

// Processor time of this process so far, in seconds.
inline double cpu() {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return time.tv_sec + time.tv_usec / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// One line of JSON: each iteration's time, the slowest rank's, in seconds, and the processor time since `cpuBefore`.
inline void print(size_t bytes, const std::vector<double>& seconds, double cpuBefore) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{\"bytes\":%zu,\"maxRssKiB\":%ld,\"cpuSeconds\":%.6f,\"seconds\":[", bytes, usage.ru_maxrss,
              cpu() - cpuBefore);
  for (size_t i = 0; i < seconds.size(); i++) std::printf("%s%.9f", i ? "," : "", seconds[i]);
  std::printf("]}\n");
  std::fflush(stdout);
}

inline void fail(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::exit(1);
}

}  // namespace timing
