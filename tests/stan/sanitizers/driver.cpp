/*
 * Calls everything that a compiled program offers, for the sanitizers to watch: each function, alone
 * and from many threads, its failures, prints, generators, and the sampler.
 *
 * Included after the program, its cases (enum), bridgestan_interface.cpp and nuts.cpp. Ends with the
 * number of expectations that did not hold.
 */
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <thread>

namespace driver {

constexpr size_t D = 11, ALL = 15;
constexpr int THREADS_AT_ONCE = 4;

std::atomic<int> unmet{0};
std::atomic<int> printed{0};

void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++unmet;
  std::fprintf(stderr, "expected: %s\n", what.c_str());
}

/* Reads every byte, and is not called by two threads at once, or the thread sanitizer would tell. */
void note_print(const char* text, size_t size) {
  static std::string last;
  last.assign(text, size);
  ++printed;
}

std::string data(int which, int divisor) {
  return "{\"n\": 4, \"y\": [0.3, -1.1, 2, 0.7], \"situation\": " + std::to_string(which) +
         ", \"divisor\": " + std::to_string(divisor) + "}";
}

/* A model, its generator, and the message of the last failure. */
class subject {
 public:
  explicit subject(int which, int divisor = 1)
      : model(bs_model_construct(data(which, divisor).c_str(), 5, &error)),
        rng(bs_rng_construct(7, nullptr)) {}

  subject(const subject&) = delete;
  subject& operator=(const subject&) = delete;

  ~subject() {
    bs_model_destruct(model);
    bs_rng_destruct(rng);
    bs_free_error_msg(error);
  }

  /* Whether a call failed, with this text in its message. */
  bool failed(int code, const char* text) {
    const bool as_expected =
        code != 0 && error != nullptr && std::strstr(error, text) != nullptr;
    bs_free_error_msg(error);
    error = nullptr;
#ifdef __SANITIZE_THREAD__
    /* Its own handler of signals blocks them all, and a jump out of it leaves them so. */
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_UNBLOCK, &all, nullptr);
#endif
    return as_expected;
  }

  char* error = nullptr;
  bs_model* model;
  bs_rng* rng;
};

std::vector<double> point(int number) {
  std::vector<double> z(D);
  for (size_t i = 0; i < D; ++i) z[i] = std::sin(1 + number + 3 * static_cast<double>(i));
  return z;
}

/* Calls that evaluate the density, by name. */
std::vector<std::pair<std::string, std::function<int(subject&)>>> evaluations() {
  std::vector<std::pair<std::string, std::function<int(subject&)>>> calls;
  for (const bool propto : {false, true})
    for (const bool jacobian : {false, true}) {
      calls.emplace_back("density", [=](subject& s) {
        double value;
        return bs_log_density(s.model, propto, jacobian, point(1).data(), &value, &s.error);
      });
      calls.emplace_back("gradient", [=](subject& s) {
        double value;
        std::vector<double> gradient(D);
        return bs_log_density_gradient(s.model, propto, jacobian, point(1).data(), &value,
                                       gradient.data(), &s.error);
      });
      calls.emplace_back("Hessian", [=](subject& s) {
        double value;
        std::vector<double> gradient(D), hessian(D * D);
        return bs_log_density_hessian(s.model, propto, jacobian, point(1).data(), &value,
                                      gradient.data(), hessian.data(), &s.error);
      });
      calls.emplace_back("Hessian times vector", [=](subject& s) {
        double value;
        std::vector<double> product(D);
        return bs_log_density_hessian_vector_product(s.model, propto, jacobian, point(1).data(),
                                                     point(2).data(), &value, product.data(),
                                                     &s.error);
      });
    }
  calls.emplace_back("start", [](subject& s) {
    std::vector<double> z(D);
    return bs_param_initialize(s.model, "{\"sigma\": 2}", s.rng, 2, 3, true, z.data(), &s.error);
  });
  return calls;
}

int constrain(subject& s, std::vector<double>& theta) {
  theta.assign(ALL, 0);
  return bs_param_constrain(s.model, true, true, point(1).data(), theta.data(), s.rng, &s.error);
}

/* ---- What succeeds --------------------------------------------------------------------------- */

void use(subject& s) {
  for (const auto& call : evaluations()) expect(call.second(s) == 0, call.first);
  double value = 0;
  std::vector<double> z = point(3), theta, product(D), again(D);
  const std::vector<double> zero(D);
  expect(bs_log_density_hessian_vector_product(s.model, true, true, z.data(), zero.data(), &value,
                                               product.data(), nullptr) == 0,
         "the Hessian times zero");
  expect(constrain(s, theta) == 0, "all values");
  for (const bool tp : {false, true}) {
    std::vector<double> some(D + tp);
    expect(bs_param_constrain(s.model, tp, false, z.data(), some.data(), nullptr, nullptr) == 0,
           "values without a generator");
    expect(bs_param_unconstrain(s.model, some.data(), again.data(), nullptr) == 0, "unconstrain");
    for (size_t i = 0; i < D; ++i) expect(std::abs(again[i] - z[i]) < 1e-8, "there and back");
  }
  expect(bs_param_unconstrain_json(s.model,
                                   "{\"mu\": 1, \"sigma\": 2, \"p\": 0.5, \"o\": [1, 2],"
                                   " \"m\": [[1, 2, 3], [4, 5, 6]]}",
                                   again.data(), nullptr) == 0,
         "JSON");
  for (const double radius : {0.0, 0.5})
    expect(bs_param_initialize(s.model, nullptr, s.rng, radius, 1, false, again.data(), nullptr) ==
               0,
           "start");
  const std::string texts = std::string(bs_name(s.model)) + bs_model_info(s.model) +
                            bs_param_names(s.model, true, true) + bs_param_unc_names(s.model);
  expect(texts.size() > 100, "names");
  expect(bs_param_num(s.model, true, true) == ALL && bs_param_unc_num(s.model) == D, "numbers");
}

/* ---- What fails ------------------------------------------------------------------------------ */

void fail() {
  std::vector<double> theta;
  for (const int which : {TRANSFORMED_REJECT, MODEL_ERROR, MODEL_PRINT_AND_REJECT}) {
    subject s(which);
    for (const auto& call : evaluations())
      expect(s.failed(call.second(s), "Exception: "), call.first + " fails");
    expect(s.failed(constrain(s, theta), "no ratio") == (which == TRANSFORMED_REJECT), "no ratio");
  }
  subject quantities(QUANTITIES_REJECT);
  expect(quantities.failed(constrain(quantities, theta), "no quantities"), "no quantities");
  subject rejected(DATA_REJECT);
  expect(rejected.model == nullptr && rejected.failed(-1, "no data"), "no data");
  for (const char* text : {"{", "[]", "", "{\"n\": -1}", "gone.json"})
    expect(bs_model_construct(text, 1, nullptr) == nullptr, text);
  expect(bs_model_construct(nullptr, 1, nullptr) == nullptr, "no data at all");
  subject plain(NOTHING);
  std::vector<double> z(D);
  theta.assign(ALL, -1);
  const auto unconstrain = [&](const char* json) {
    return bs_param_unconstrain_json(plain.model, json, z.data(), &plain.error);
  };
  for (const char* text : {"{", "{\"mu\": [1, 2]}", "gone.json"})
    expect(plain.failed(unconstrain(text), ""), text);
  expect(plain.failed(unconstrain(nullptr), "mu"), "nothing given");
  expect(plain.failed(bs_param_unconstrain(plain.model, theta.data(), z.data(), &plain.error),
                      "Lower"),
         "a constraint");
  expect(plain.failed(bs_param_constrain(plain.model, true, true, z.data(), theta.data(), nullptr,
                                         &plain.error),
                      "generator"),
         "a generator");
  bs_free_error_msg(nullptr);
  bs_model_destruct(nullptr);
}

/* Integer divisions whose result is no int. What they had allocated is lost. */
void divide() {
  std::vector<double> theta;
  for (const int which : {MODEL_DIVIDE, MODEL_PRINT_AND_DIVIDE}) {
    subject s(which, 0);
    for (int i = 0; i < 3; ++i)
      for (const auto& call : evaluations())
        expect(s.failed(call.second(s), "integer division"), call.first + " divides");
    expect(constrain(s, theta) == 0, "values nevertheless");
  }
  subject quantities(QUANTITIES_DIVIDE, 0);
  expect(quantities.failed(constrain(quantities, theta), "integer division"), "quantities divide");
  subject none(DATA_DIVIDE, 0);
  expect(none.model == nullptr && none.failed(-1, "integer division"), "data divide");
  subject plain(NOTHING);
  use(plain);
}

/* ---- Prints, threads, the sampler ------------------------------------------------------------ */

void print() {
  for (const print_callback to : {print_callback{nullptr}, print_callback{note_print}}) {
    expect(bs_set_print_callback(to, nullptr) == 0, "a callback");
    subject in_data(DATA_PRINT);
    subject in_model(MODEL_PRINT), in_quantities(QUANTITIES_PRINT);
    for (const auto& call : evaluations()) expect(call.second(in_model) == 0, call.first);
    std::vector<double> theta;
    expect(constrain(in_quantities, theta) == 0, "values");
  }
  expect(printed > 10, "prints");
}

void at_once(const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < THREADS_AT_ONCE; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

struct chain {
  explicit chain(const bs_model* model, int metric = NUTS_DIAG_E, unsigned int number = 1)
      : model(model) {
    settings.metric = metric;
    settings.seed = 3;
    settings.chain = number;
    settings.init_radius = 2;
    settings.warmup = 60;
    settings.draws = 40;
    settings.adapt_delta = 0.8;
    settings.max_depth = 10;
    settings.init_buffer = 15;
    settings.term_buffer = 10;
    settings.window = 10;
  }

  int run() {
    const auto rows = static_cast<size_t>(settings.warmup + settings.draws);
    statistics.assign(rows * 7, 0);
    values.assign(rows * ALL, 0);
    return stanflow_nuts(model, &settings, statistics.data(), values.data(), &stop, &iteration,
                         &error);
  }

  ~chain() { bs_free_error_msg(error); }

  const bs_model* model;
  stanflow_nuts_settings settings = {};
  std::vector<double> statistics, values;
  int stop = 0, iteration = 0;
  char* error = nullptr;
};

void sample() {
  subject s(NOTHING), printing(MODEL_PRINT), impossible(IMPOSSIBLE), late(QUANTITIES_REJECT);
  std::vector<double> alone;
  for (const int metric : {NUTS_DENSE_E, NUTS_DIAG_E}) {
    chain c(s.model, metric);
    const std::vector<double> inverse(metric == NUTS_DIAG_E ? D : D * D, 0.5);
    c.settings.init = "{\"mu\": 1}";
    expect(c.run() == NUTS_OK && c.iteration == 100, "a chain");
    if (metric == NUTS_DIAG_E) c.settings.inverse_metric = inverse.data();
    c.settings.init = nullptr;
    expect(c.run() == NUTS_OK, "another chain");
    alone = c.values;
  }
  const std::vector<double> inverse(D, 0.5);
  at_once([&](int i) {
    chain c(i == 3 ? printing.model : s.model);
    c.settings.inverse_metric = inverse.data();
    expect(c.run() == NUTS_OK && c.values == alone, "chains at once are as alone");
  });
  at_once([&](int) {
    chain c(s.model);
    c.settings.warmup = 30000;
    std::thread other([&] {
      while (__atomic_load_n(&c.iteration, __ATOMIC_RELAXED) < 50) std::this_thread::yield();
      __atomic_store_n(&c.stop, 1, __ATOMIC_RELAXED);
    });
    expect(c.run() == NUTS_STOPPED && c.iteration >= 50, "a chain stops");
    other.join();
    subject own(NOTHING);
    use(own);
  });
  chain hopeless(impossible.model), unreadable(s.model), unfinished(late.model);
  expect(hopeless.run() == NUTS_FAILED && hopeless.error != nullptr, "no start");
  unreadable.settings.init = "{";
  expect(unreadable.run() == NUTS_FAILED && unreadable.error != nullptr, "no JSON");
  expect(unfinished.run() == NUTS_OK, "quantities that throw");
}

void sample_dividing() {
  subject broken(MODEL_DIVIDE, 0);
  chain c(broken.model);
  expect(c.run() == NUTS_FAILED && std::strstr(c.error, "integer division") != nullptr,
         "a chain divides");
}

/* Each part that is named, or each but `divide`, which loses memory by design. */
void run(int count, char** names) {
  const std::vector<std::pair<std::string, std::function<void()>>> parts = {
      {"print", print},
      {"use", [] { subject s(NOTHING); use(s); }},
      {"fail", fail},
      {"share", [] {
         subject s(NOTHING), printing(MODEL_PRINT);
         at_once([&](int i) {
           subject own(NOTHING);
           bs_rng* const rng = bs_rng_construct(1, nullptr);
           use(own);
           for (const auto& call : evaluations())
             if (call.first != "start") expect(call.second(i % 2 ? s : printing) == 0, call.first);
           bs_set_print_callback(note_print, nullptr);
           bs_rng_destruct(rng);
           fail();
         });
       }},
      {"parallel", [] { subject s(THREADS); use(s); use(s); }},
      {"sample", sample},
      {"divide", [] {
         divide();
         at_once([](int) { divide(); });
         sample_dividing();
       }}};
  for (const auto& part : parts) {
    bool wanted = count == 1 && part.first != "divide";
    for (int i = 1; i < count; ++i) wanted = wanted || part.first == names[i];
    if (wanted) part.second();
  }
}

}  // namespace driver

int main(int count, char** names) {
  driver::run(count, names);
  std::fprintf(stderr, "%d expectations were not met\n", driver::unmet.load());
  return driver::unmet == 0 ? 0 : 1;
}
