// All-reduce with MPI, separate input and output; started by mpirun.
#include <mpi.h>

#include "timing.h"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (argc < 4) timing::fail("usage: mpi_allreduce iterations warmups bytes...");
  const int iterations = std::atoi(argv[1]);
  const int warmups = std::atoi(argv[2]);
  for (int arg = 3; arg < argc; arg++) {
    const size_t bytes = std::strtoull(argv[arg], nullptr, 10);
    const size_t count = bytes / sizeof(float);
    std::vector<float> input(count, float(rank + 1));
    std::vector<float> output(count, 0.0f);
    const int rounds = timing::repetitions(iterations, bytes);
    std::vector<double> seconds;
    double cpuBefore = 0;
    for (int round = -warmups; round < rounds; round++) {
      if (round == 0) cpuBefore = timing::cpu();
      MPI_Barrier(MPI_COMM_WORLD);
      const double start = timing::now();
      MPI_Allreduce(input.data(), output.data(), int(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      double elapsed = timing::now() - start;
      double slowest = 0;
      MPI_Allreduce(&elapsed, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
      if (round >= 0) seconds.push_back(slowest);
    }
    if (output[0] != size * (size + 1) / 2.0f || output[count - 1] != output[0]) timing::fail("mpi: wrong result");
    if (rank == 0) timing::print(bytes, seconds, cpuBefore);
  }
  MPI_Finalize();
  return 0;
}
