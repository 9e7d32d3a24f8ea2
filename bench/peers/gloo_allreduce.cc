// All-reduce with Gloo's ring over TCP on the loopback interface, separate input and output, one process per rank.
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include <memory>

#include "timing.h"

int main(int argc, char** argv) {
  if (argc < 7) timing::fail("usage: gloo_allreduce rank worldSize directory iterations warmups bytes...");
  const int rank = std::atoi(argv[1]);
  const int size = std::atoi(argv[2]);
  gloo::rendezvous::FileStore store(argv[3]);
  const int iterations = std::atoi(argv[4]);
  const int warmups = std::atoi(argv[5]);

  gloo::transport::tcp::attr attributes;
  attributes.hostname = "127.0.0.1";
  auto device = gloo::transport::tcp::CreateDevice(attributes);
  auto context = std::make_shared<gloo::rendezvous::Context>(rank, size);
  context->connectFullMesh(store, device);

  uint32_t tag = 0;
  for (int arg = 6; arg < argc; arg++) {
    const size_t bytes = std::strtoull(argv[arg], nullptr, 10);
    const size_t count = bytes / sizeof(float);
    std::vector<float> input(count, float(rank + 1));
    std::vector<float> output(count, 0.0f);
    const int rounds = timing::repetitions(iterations, bytes);
    std::vector<double> seconds;
    double cpuBefore = 0;
    for (int round = -warmups; round < rounds; round++) {
      if (round == 0) cpuBefore = timing::cpu();
      gloo::BarrierOptions barrier(context);
      barrier.setTag(tag++);
      gloo::barrier(barrier);
      const double start = timing::now();
      gloo::AllreduceOptions options(context);
      options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
      options.setInput(input.data(), count);
      options.setOutput(output.data(), count);
      options.setReduceFunction(static_cast<void (*)(void*, const void*, const void*, size_t)>(&gloo::sum<float>));
      options.setTag(tag++);
      gloo::allreduce(options);
      double elapsed = timing::now() - start;
      double slowest = 0;
      gloo::AllreduceOptions maximum(context);
      maximum.setInput(&elapsed, 1);
      maximum.setOutput(&slowest, 1);
      maximum.setReduceFunction(static_cast<void (*)(void*, const void*, const void*, size_t)>(&gloo::max<double>));
      maximum.setTag(tag++);
      gloo::allreduce(maximum);
      if (round >= 0) seconds.push_back(slowest);
    }
    if (output[0] != size * (size + 1) / 2.0f || output[count - 1] != output[0]) timing::fail("gloo: wrong result");
    if (rank == 0) timing::print(bytes, seconds, cpuBefore);
  }
  return 0;
}
