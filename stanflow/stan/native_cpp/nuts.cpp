/*
 * NUTS: one call runs one chain of Stan's own sampler, as CmdStan does, with the same defaults and
 * random numbers (stan::services::sample::hmc_nuts_diag_e_adapt and hmc_nuts_dense_e_adapt).
 *
 * Conventions:
 *   - Arrays and texts are the caller's, are not kept after the call, and are row-major and
 *     contiguous. An error text is the callee's, made by malloc, and freed by bs_free_error_msg.
 *   - Any number of threads may call at once, also for the same model, with arrays of their own.
 *   - `stop` and `iteration` are read and written atomically while the call runs, so another thread
 *     may set the one and watch the other; nothing calls back.
 *   - No exception leaves the call, nor the signal of an integer division.
 */
#include "bs_model.hpp"

#include <stan/callbacks/interrupt.hpp>
#include <stan/callbacks/logger.hpp>
#include <stan/callbacks/structured_writer.hpp>
#include <stan/callbacks/writer.hpp>
#include <stan/io/array_var_context.hpp>
#include <stan/io/empty_var_context.hpp>
#include <stan/io/json/json_data.hpp>
#include <stan/math/rev/core.hpp>
#include <stan/model/model_base.hpp>
#include <stan/services/error_codes.hpp>
#include <stan/services/sample/hmc_nuts_dense_e_adapt.hpp>
#include <stan/services/sample/hmc_nuts_diag_e_adapt.hpp>

#include <algorithm>
#include <deque>
#include <sstream>
#include <stdexcept>

#define PUBLIC extern "C" __attribute__((visibility("default")))

extern "C" {

enum stanflow_nuts_metric { NUTS_DIAG_E = 0, NUTS_DENSE_E = 1 };

enum stanflow_nuts_result { NUTS_OK = 0, NUTS_FAILED = 1, NUTS_STOPPED = 2 };

/* How a chain is run; what is not here has CmdStan's default. With D unconstrained parameters: */
struct stanflow_nuts_settings {
  int metric;                    /* one of enum stanflow_nuts_metric */
  unsigned int seed;             /* the chain's random numbers are Stan's stream (seed, chain) */
  unsigned int chain;            /* from 1 on */
  double init_radius;            /* what `init` lacks starts uniform on (-radius, radius) */
  const char* init;              /* parameters on the program's scale as JSON, or null for none */
  const double* inverse_metric;  /* (D) or (D, D) to start with, or null for the identity */
  int warmup;
  int draws;
  double adapt_delta;
  int max_depth;
  unsigned int init_buffer;      /* the stages of warmup, as CmdStan calls them */
  unsigned int term_buffer;
  unsigned int window;
};

}  // extern "C"

namespace {

// CmdStan's defaults of what is not among the settings.
constexpr double STEP_SIZE = 1, STEP_SIZE_JITTER = 0;
constexpr double GAMMA = 0.05, KAPPA = 0.75, T0 = 10;

constexpr std::size_t N_STATISTICS = 7;
constexpr std::size_t MESSAGES_KEPT = 60, MESSAGE_LENGTH = 1000;

/* Thrown to stop a chain. Not a std::exception, since Stan takes those for its own. */
struct stopped {};

/* The model as Stan's services see it. It looks before every evaluation whether the chain is to
 * stop, which a transition of a thousand gradients would else make wait, and has print statements
 * write where they do in all other evaluations. */
class stoppable_model {
 public:
  stoppable_model(const stan::model::model_base& model, const int* stop)
      : model_(model), stop_(stop) {}

  std::size_t num_params_r() const { return model_.num_params_r(); }

  void get_param_names(std::vector<std::string>& names, bool tp, bool gq) const {
    model_.get_param_names(names, tp, gq);
  }

  void get_dims(std::vector<std::vector<std::size_t>>& shapes, bool tp, bool gq) const {
    model_.get_dims(shapes, tp, gq);
  }

  void constrained_param_names(std::vector<std::string>& names, bool tp, bool gq) const {
    model_.constrained_param_names(names, tp, gq);
  }

  void unconstrained_param_names(std::vector<std::string>& names, bool tp, bool gq) const {
    model_.unconstrained_param_names(names, tp, gq);
  }

  void transform_inits(const stan::io::var_context& context, std::vector<int>& none,
                       std::vector<double>& z, std::ostream* messages) const {
    model_.transform_inits(context, none, z, output(messages));
  }

  void write_array(stan::rng_t& rng, std::vector<double>& z, std::vector<int>& none,
                   std::vector<double>& values, bool tp, bool gq, std::ostream* messages) const {
    model_.write_array(rng, z, none, values, tp, gq, output(messages));
  }

  template <bool propto, bool jacobian, typename T>
  T log_prob(Eigen::Matrix<T, -1, 1>& z, std::ostream* messages) const {
    stop_if_asked();
    return model_.template log_prob<propto, jacobian, T>(z, output(messages));
  }

  template <bool propto, bool jacobian, typename T>
  T log_prob(std::vector<T>& z, std::vector<int>& none, std::ostream* messages) const {
    stop_if_asked();
    return model_.template log_prob<propto, jacobian, T>(z, none, output(messages));
  }

 private:
  void stop_if_asked() const {
    if (stop_ != nullptr && __atomic_load_n(stop_, __ATOMIC_RELAXED) != 0) throw stopped{};
  }

  /* Null where Stan wants to hear nothing. */
  static std::ostream* output(const std::ostream* messages) {
    return messages == nullptr ? nullptr : &stanflow::program_output();
  }

  const stan::model::model_base& model_;
  const int* stop_;
};

/* Takes draws, which Stan hands over as one vector each, into the caller's arrays. Whatever else
 * Stan would write into a CSV file comes by the other overloads, which do nothing. */
class draws_writer : public stan::callbacks::writer {
 public:
  draws_writer(double* statistics, double* values, std::size_t n_rows, std::size_t n_values,
               int* iteration)
      : statistics_(statistics),
        values_(values),
        n_rows_(n_rows),
        n_values_(n_values),
        iteration_(iteration) {}

  using stan::callbacks::writer::operator();

  void operator()(const std::vector<double>& draw) override {
    if (row_ == n_rows_ || draw.size() != N_STATISTICS + n_values_)
      throw std::logic_error("Stan's sampler wrote more draws, or other values, than expected");
    const auto first_value = draw.begin() + N_STATISTICS;
    std::copy(draw.begin(), first_value, statistics_ + row_ * N_STATISTICS);
    std::copy(first_value, draw.end(), values_ + row_ * n_values_);
    ++row_;
    if (iteration_ != nullptr)
      __atomic_store_n(iteration_, static_cast<int>(row_), __ATOMIC_RELAXED);
  }

  bool complete() const { return row_ == n_rows_; }

 private:
  double* statistics_;
  double* values_;
  std::size_t n_rows_;
  std::size_t n_values_;
  int* iteration_;
  std::size_t row_ = 0;
};

/* Keeps the last messages, which tell why a chain has failed. */
class last_messages : public stan::callbacks::logger {
 public:
  void info(const std::string& message) override { keep(message); }
  void info(const std::stringstream& message) override { keep(message.str()); }
  void warn(const std::string& message) override { keep(message); }
  void warn(const std::stringstream& message) override { keep(message.str()); }
  void error(const std::string& message) override { keep(message); }
  void error(const std::stringstream& message) override { keep(message.str()); }
  void fatal(const std::string& message) override { keep(message); }
  void fatal(const std::stringstream& message) override { keep(message.str()); }

  std::string text() const {
    std::string joined;
    for (const std::string& message : messages_) joined += message + '\n';
    return joined;
  }

 private:
  void keep(const std::string& message) {
    if (message.empty()) return;
    if (messages_.size() == MESSAGES_KEPT) messages_.pop_front();
    messages_.push_back(message.substr(0, MESSAGE_LENGTH));
  }

  std::deque<std::string> messages_;
};

std::unique_ptr<stan::io::var_context> init_context(const char* init) {
  if (init == nullptr) return std::make_unique<stan::io::empty_var_context>();
  std::istringstream json(init);
  return std::make_unique<stan::json::json_data>(json);
}

/* The inverse metric as CmdStan would read it from a file. */
stan::io::array_var_context metric_context(const stanflow_nuts_settings& s, std::size_t dim) {
  const bool dense = s.metric == NUTS_DENSE_E;
  const std::vector<std::size_t> shape(dense ? 2 : 1, dim);
  std::vector<double> elements(dense ? dim * dim : dim, dense ? 0 : 1);
  if (s.inverse_metric != nullptr)
    std::copy_n(s.inverse_metric, elements.size(), elements.begin());
  else if (dense)
    for (std::size_t i = 0; i < dim; ++i) elements[i * dim + i] = 1;
  return stan::io::array_var_context({"inv_metric"}, elements, {shape});
}

/* Runs the chain; throws `stopped`, or std::exception where the settings cannot be read. Says by
 * the result and in `messages` whether the sampler has failed. */
bool sample(stoppable_model& model, const stanflow_nuts_settings& s, draws_writer& draws,
            last_messages& messages) {
  const auto init = init_context(s.init);
  const auto metric = metric_context(s, model.num_params_r());
  stan::callbacks::interrupt no_interrupt;
  stan::callbacks::writer no_writer;
  stan::callbacks::structured_writer no_metric_writer;
  constexpr int thin = 1, refresh = 0;
  constexpr bool save_warmup = true;
  const auto run = [&](auto service) {
    return service(model, *init, metric, s.seed, s.chain, s.init_radius, s.warmup, s.draws, thin,
                   save_warmup, refresh, STEP_SIZE, STEP_SIZE_JITTER, s.max_depth, s.adapt_delta,
                   GAMMA, KAPPA, T0, s.init_buffer, s.term_buffer, s.window, no_interrupt, messages,
                   no_writer, draws, no_writer, no_metric_writer);
  };
  namespace services = stan::services::sample;
  const auto dense_e = [](auto&... args) { return services::hmc_nuts_dense_e_adapt(args...); };
  const auto diag_e = [](auto&... args) { return services::hmc_nuts_diag_e_adapt(args...); };
  const int code = s.metric == NUTS_DENSE_E ? run(dense_e) : run(diag_e);
  // Where no first step size is found, Stan writes nothing and calls that a success.
  return code == stan::services::error_codes::OK && draws.complete();
}

}  // namespace

/*
 * One chain, in the calling thread.
 *
 * model       the program conditioned on data
 * settings    see above
 * statistics  out, (warmup + draws, 7), in CmdStan's order: lp__, accept_stat__, stepsize__,
 *             treedepth__, n_leapfrog__, divergent__, energy__
 * values      out, (warmup + draws, n): all constrained scalars, with transformed parameters and
 *             generated quantities; NaN for what these had not computed when they threw. The rows
 *             of both arrays from `iteration` on are untouched.
 * stop        where not null and no longer zero, the chain stops at its next gradient
 * iteration   out, where not null: how many iterations are done, warmup included
 * error       out, for NUTS_FAILED and where not null: Stan's last messages, one a line. Untouched
 *             otherwise
 *
 * Returns one of enum stanflow_nuts_result.
 */
PUBLIC int stanflow_nuts(const bs_model* model, const stanflow_nuts_settings* settings,
                         double* statistics, double* values, const int* stop, int* iteration,
                         char** error) {
  int result = NUTS_FAILED;
  const bool known = stanflow::succeeds(error, [&] {
    last_messages messages;
    try {
      const auto n_rows = static_cast<std::size_t>(settings->warmup) + settings->draws;
      draws_writer draws(statistics, values, n_rows, model->n_values[1][1], iteration);
      stoppable_model stoppable(*model->model, stop);
      if (sample(stoppable, *settings, draws, messages)) result = NUTS_OK;
    } catch (const stopped&) {
      stanflow::clear_tape();
      result = NUTS_STOPPED;
    } catch (const std::exception& e) {
      messages.error(e.what());
    }
    if (result == NUTS_FAILED) stanflow::set_error(error, messages.text());
  });
  return known ? result : NUTS_FAILED;
}
