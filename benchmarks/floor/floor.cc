// The floor: a C++ gRPC callback server that does to a call what cannot be left out.
//
//   floor [--model-us 14] [--port 0]
//
// It decodes the request, burns the model's time, answers with an action and encodes: no
// validation, no costs, no record, one model run a call. Built twice: as gRPC's documents show
// it, on Debian's libraries; and, with -DTUNED, with all that was seen to help it on one core:
// recycled arenas for the messages, the minimal stack, no probes and, in the Makefile, gRPC
// linked statically and jemalloc. What did not help: a resource quota, another polling engine,
// an optimization target.
//
// The port is the one line on stdout, 0 lets the system choose; SIGTERM or SIGINT ends it.
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/message_allocator.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gateway/v1/decision.grpc.pb.h"

namespace v1 = gateway::v1;
using Clock = std::chrono::steady_clock;

namespace {

// One call's request and response, on an arena whose first block is part of this object.
class Messages final : public grpc::MessageHolder<v1::DecideRequest, v1::DecideResponse> {
 public:
  explicit Messages(class Pool* pool) : pool_(pool), arena_(block_, sizeof block_) { Renew(); }
  void Release() override;
  void Renew() {
    arena_.Reset();
    set_request(google::protobuf::Arena::CreateMessage<v1::DecideRequest>(&arena_));
    set_response(google::protobuf::Arena::CreateMessage<v1::DecideResponse>(&arena_));
  }

 private:
  class Pool* pool_;
  alignas(8) char block_[4096];
  google::protobuf::Arena arena_;
};

class Pool final : public grpc::MessageAllocator<v1::DecideRequest, v1::DecideResponse> {
 public:
  Messages* AllocateMessages() override {
    {
      const std::lock_guard<std::mutex> held(mutex_);
      if (!free_.empty()) {
        Messages* const one = free_.back().release();
        free_.pop_back();
        return one;
      }
    }
    return new Messages(this);
  }
  void Take(Messages* one) {
    one->Renew();
    const std::lock_guard<std::mutex> held(mutex_);
    free_.emplace_back(one);
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Messages>> free_;
};

void Messages::Release() { pool_->Take(this); }

class Decisions final : public v1::DecisionService::CallbackService {
 public:
  explicit Decisions(std::chrono::nanoseconds model) : model_(model) {
#ifdef TUNED
    SetMessageAllocatorFor_Decide(&pool_);
#endif
  }

  grpc::ServerUnaryReactor* Decide(grpc::CallbackServerContext* context,
                                   const v1::DecideRequest* request,
                                   v1::DecideResponse* response) override {
    for (const auto end = Clock::now() + model_; Clock::now() < end;) {
    }
    char id[32];
    const int length = std::snprintf(id, sizeof id, "floor-%012lx", count_.fetch_add(1));
    response->set_decision_id(id, length);
    response->set_action(request->amount() < 1'000'000 ? v1::APPROVE : v1::STEP_UP);
    response->set_probability(0.002);
    auto* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const std::chrono::nanoseconds model_;
  std::atomic<unsigned long> count_{0};
#ifdef TUNED
  Pool pool_;
#endif
};

struct Asked {
  double model_us = 0;
  int port = 0;
};

Asked Parse(int count, char** arguments) {
  Asked asked;
  for (int i = 1; i < count; i += 2) {
    const std::string name = arguments[i];
    if (i + 1 == count || (name != "--model-us" && name != "--port")) {
      std::fprintf(stderr, "floor: %s; try: floor --model-us 14 --port 0\n", name.c_str());
      std::exit(2);
    }
    if (name == "--port") asked.port = std::atoi(arguments[i + 1]);
    if (name == "--model-us") asked.model_us = std::atof(arguments[i + 1]);
  }
  return asked;
}

}  // namespace

int main(int count, char** arguments) {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before gRPC starts its threads

  const Asked asked = Parse(count, arguments);
  Decisions service(std::chrono::nanoseconds(static_cast<long>(asked.model_us * 1000)));

  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(asked.port),
                           grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a port in use is an error
#ifdef TUNED
  builder.AddChannelArgument(GRPC_ARG_MINIMAL_STACK, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
#endif
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    std::fprintf(stderr, "floor: port %d cannot be listened on; try --port 0\n",
                 asked.port);
    return 1;
  }
  std::printf("%d\n", port);
  std::fflush(stdout);

  int signal = 0;
  sigwait(&ends, &signal);
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  return 0;
}
