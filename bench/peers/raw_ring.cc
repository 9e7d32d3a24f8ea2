// The raw ceiling of TCP over loopback, or of Unix-domain sockets (`unix` in front of all arguments): each process sends to the next and reads from the previous as fast as it can, from and
// to buffers as large as the tensor, and computes nothing. For a tensor of S bytes on N ranks each moves 2(N-1)/N * S
// bytes each way, as a ring all-reduce does. One program forks the ranks.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <string>

#include "timing.h"

namespace {

constexpr int kMaxRanks = 64;
constexpr size_t kChunk = 256 << 10;

struct Shared {
  std::atomic<int> arrived{0};
  std::atomic<int> turn{0};
  double elapsed[kMaxRanks];
};

void barrier(Shared* shared, int size) {
  const int turn = shared->turn.load();
  if (shared->arrived.fetch_add(1) + 1 == size) {
    shared->arrived.store(0);
    shared->turn.fetch_add(1);
  } else {
    while (shared->turn.load() == turn) usleep(20);
  }
}

void exchange(int in, int out, const char* source, char* target, size_t tensor, size_t bytes) {
  size_t sent = 0;
  size_t received = 0;
  while (sent < bytes || received < bytes) {
    struct pollfd waits[2] = {{in, short(received < bytes ? POLLIN : 0), 0}, {out, short(sent < bytes ? POLLOUT : 0), 0}};
    if (poll(waits, 2, 10000) <= 0) timing::fail("raw: no progress");
    if (waits[0].revents & POLLIN) {
      const size_t at = received % tensor;
      const ssize_t got = read(in, target + at, std::min({kChunk, bytes - received, tensor - at}));
      if (got <= 0) timing::fail("raw: the previous rank is gone");
      received += size_t(got);
    }
    if (waits[1].revents & POLLOUT) {
      const size_t at = sent % tensor;
      const ssize_t put = write(out, source + at, std::min({kChunk, bytes - sent, tensor - at}));
      if (put > 0) sent += size_t(put);
    }
  }
}

void run(Shared* shared, int rank, int size, int in, int out, int argc, char** argv) {
  const int iterations = std::atoi(argv[2]);
  const int warmups = std::atoi(argv[3]);
  for (int arg = 4; arg < argc; arg++) {
    const size_t tensor = std::strtoull(argv[arg], nullptr, 10);
    const size_t bytes = 2 * size_t(size - 1) * tensor / size_t(size);
    std::vector<char> source(tensor, char(rank + 1));
    std::vector<char> target(tensor, 0);
    const int rounds = timing::repetitions(iterations, tensor);
    std::vector<double> seconds;
    double cpuBefore = 0;
    for (int round = -warmups; round < rounds; round++) {
      if (round == 0) cpuBefore = timing::cpu();
      barrier(shared, size);
      const double start = timing::now();
      exchange(in, out, source.data(), target.data(), tensor, bytes);
      shared->elapsed[rank] = timing::now() - start;
      barrier(shared, size);
      if (round >= 0) seconds.push_back(*std::max_element(shared->elapsed, shared->elapsed + size));
    }
    if (target[0] != char((rank + size - 1) % size + 1)) timing::fail("raw: wrong bytes");
    if (rank == 0) timing::print(tensor, seconds, cpuBefore);
  }
}

struct Way {
  int in;
  int out;
};

/** From each rank to the next, by Unix-domain sockets. */
std::vector<Way> unixWays(int size) {
  std::vector<Way> ways(static_cast<size_t>(size));
  for (size_t rank = 0; rank < ways.size(); rank++) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) timing::fail("raw: no pair of sockets");
    ways[rank].out = ends[0];
    ways[(rank + 1) % ways.size()].in = ends[1];
  }
  return ways;
}

}  // namespace

int main(int argc, char** argv) {
  const bool isUnix = argc > 1 && std::string(argv[1]) == "unix";
  if (isUnix) {
    argc -= 1;
    argv += 1;
  }
  if (argc < 5) timing::fail("usage: raw_ring [unix] worldSize iterations warmups bytes...");
  const int size = std::atoi(argv[1]);
  if (size < 2 || size > kMaxRanks) timing::fail("raw: bad world size");
  auto* shared = new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared;
  const std::vector<Way> pairs = isUnix ? unixWays(size) : std::vector<Way>();
  std::vector<int> listeners;
  std::vector<struct sockaddr_in> addresses;
  for (int rank = 0; rank < size && !isUnix; rank++) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    if (bind(listener, reinterpret_cast<struct sockaddr*>(&address), length) || listen(listener, 1)) timing::fail("raw: cannot listen");
    getsockname(listener, reinterpret_cast<struct sockaddr*>(&address), &length);
    listeners.push_back(listener);
    addresses.push_back(address);
  }
  std::vector<pid_t> children;
  for (int rank = 0; rank < size; rank++) {
    const pid_t child = fork();
    if (child != 0) {
      children.push_back(child);
      continue;
    }
    if (isUnix) {
      const Way& way = pairs[size_t(rank)];
      for (int fd : {way.in, way.out}) fcntl(fd, F_SETFL, O_NONBLOCK);
      for (const Way& other : pairs) {
        if (other.in != way.in) close(other.in);
        if (other.out != way.out) close(other.out);
      }
      run(shared, rank, size, way.in, way.out, argc, argv);
      return 0;
    }
    const int out = socket(AF_INET, SOCK_STREAM, 0);
    auto& next = addresses[size_t((rank + 1) % size)];
    if (connect(out, reinterpret_cast<struct sockaddr*>(&next), sizeof(next))) timing::fail("raw: cannot connect");
    const int in = accept(listeners[size_t(rank)], nullptr, nullptr);
    const int on = 1;
    for (int fd : {in, out}) {
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    run(shared, rank, size, in, out, argc, argv);
    return 0;
  }
  int failures = 0;
  for (pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    failures += status != 0;
  }
  return failures == 0 ? 0 : 1;
}
