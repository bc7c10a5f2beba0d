/*
 * BridgeStan's C interface (https://roualdes.us/bridgestan/latest/languages/c-api.html), version
 * 2.9, over any Stan program: what `bridgestan.StanModel` looks up in a model library.
 *
 * Conventions, for every function below:
 *   - Pointers are the caller's; strings that are returned live as long as the model.
 *   - A function that can fail returns 0, or -1 (null where it makes something). It then sets
 *     *error_msg, unless error_msg is null, to a message to be freed by bs_free_error_msg.
 *   - A constructed model is not changed by any call, so threads may share it. A bs_rng is for one
 *     thread at a time.
 *   - No C++ exception leaves, nor the signal that the processor raises for an integer division
 *     whose result is none.
 */
#include "bs_model.hpp"

#include <stan/io/array_var_context.hpp>
#include <stan/io/chained_var_context.hpp>
#include <stan/io/empty_var_context.hpp>
#include <stan/io/json/json_data.hpp>
#include <stan/io/random_var_context.hpp>
#include <stan/math/rev/core.hpp>
#include <stan/math/rev/functor/finite_diff_hessian_auto.hpp>
#include <stan/math/rev/functor/finite_diff_hessian_times_vector_auto.hpp>
#include <stan/services/util/create_rng.hpp>
#include <stan/version.hpp>

#include <dlfcn.h>
#include <execinfo.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <mutex>
#include <sstream>
#include <streambuf>

#define PUBLIC extern "C" __attribute__((visibility("default")))

/* Defined with the program: its model, conditioned on data. */
extern "C" stan::model::model_base* stanflow_new_model(stan::io::var_context& data,
                                                       unsigned int seed, std::ostream* output);

using rng_type = decltype(stan::services::util::create_rng(0, 0));

struct bs_rng {
  rng_type rng;
};

typedef void (*print_callback)(const char* text, size_t size);

namespace {

/* ---- What programs print --------------------------------------------------------------------- */

std::mutex print_lock;
print_callback print_to = nullptr;

/* Passes on whole messages: Stan flushes after each print statement. */
class message_buffer : public std::streambuf {
 protected:
  int_type overflow(int_type c) override {
    if (!traits_type::eq_int_type(c, traits_type::eof()))
      text_.push_back(traits_type::to_char_type(c));
    return traits_type::not_eof(c);
  }

  std::streamsize xsputn(const char* text, std::streamsize size) override {
    text_.append(text, static_cast<size_t>(size));
    return size;
  }

  int sync() override {
    if (!text_.empty()) {
      const std::lock_guard<std::mutex> guard(print_lock);
      if (print_to != nullptr)
        print_to(text_.data(), text_.size());
      else
        std::cout.write(text_.data(), static_cast<std::streamsize>(text_.size())).flush();
      text_.clear();
    }
    return 0;
  }

 private:
  std::string text_;
};

class message_stream : public std::ostream {
 public:
  message_stream() : std::ostream(&buffer_) {}

 private:
  message_buffer buffer_;
};

/* ---- Failures --------------------------------------------------------------------------------
 * Signals that no evaluation of this thread has caused go where they went before, and so do those
 * from within TBB: some are of other threads, and it would not survive a jump out of it. */

bool within_tbb() {
  void* frames[256];
  const int n = backtrace(frames, 256);
  return std::any_of(frames, frames + n, [](const void* frame) {
    Dl_info found = {};
    return dladdr(frame, &found) != 0 && found.dli_fname != nullptr &&
           std::strstr(found.dli_fname, "libtbb") != nullptr;
  });
}

struct sigaction previous_action;

void on_arithmetic_signal(int number, siginfo_t* information, void* context) {
  if (stanflow::evaluation != nullptr && !within_tbb()) siglongjmp(*stanflow::evaluation, 1);
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(number, information, context);
  } else if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
    sigaction(number, &previous_action, nullptr);
    raise(number);
  } else {
    previous_action.sa_handler(number);
  }
}

void handle_arithmetic_signals() {
  static std::once_flag once;
  std::call_once(once, [] {
    void* frame;
    backtrace(&frame, 1); /* loads what it needs, which a handler of signals had better not */
    struct sigaction action = {};
    action.sa_sigaction = on_arithmetic_signal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER; /* it jumps out, so nothing would unblock it */
    sigaction(SIGFPE, &action, &previous_action);
  });
}

template <typename F>
int status(char** error_msg, const F& f) noexcept {
  return stanflow::succeeds(error_msg, f) ? 0 : -1;
}

/* ---- Data ------------------------------------------------------------------------------------ */

bool ends_with(const std::string& text, const std::string& ending) {
  return text.size() >= ending.size() &&
         text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

/* JSON text, the path of a file with it, or nothing. */
std::unique_ptr<stan::io::var_context> read_context(const char* text) {
  const std::string json(text == nullptr ? "" : text);
  if (json.empty()) return std::make_unique<stan::io::empty_var_context>();
  if (ends_with(json, ".json")) {
    std::ifstream file(json);
    if (!file) throw std::invalid_argument("the data file " + json + " cannot be read");
    return std::make_unique<stan::json::json_data>(file);
  }
  std::istringstream stream(json);
  return std::make_unique<stan::json::json_data>(stream);
}

/* ---- Densities ------------------------------------------------------------------------------- */

template <typename T>
T log_density(const bs_model* m, bool propto, bool jacobian, Eigen::Matrix<T, -1, 1>& z) {
  std::ostream* output = &stanflow::program_output();
  const stan::model::model_base& model = *m->model;
  if (propto)
    return jacobian ? model.log_prob_propto_jacobian(z, output) : model.log_prob_propto(z, output);
  return jacobian ? model.log_prob_jacobian(z, output) : model.log_prob(z, output);
}

/* The log density as a function of its argument, for Stan's functors. */
struct density_function {
  const bs_model* model;
  bool propto, jacobian;

  template <typename T>
  T operator()(const Eigen::Matrix<T, -1, 1>& z) const {
    Eigen::Matrix<T, -1, 1> point(z);
    return log_density(model, propto, jacobian, point);
  }

  /* Stan drops the constants of its arguments' type: of doubles, it would drop everything. */
  double operator()(const Eigen::VectorXd& z) const {
    if (!propto) return operator()<double>(z);
    const stan::math::nested_rev_autodiff nested;
    return operator()<stan::math::var>(z.cast<stan::math::var>()).val();
  }
};

void gradient(const density_function& f, const double* z, double* value, double* derivative) {
  const stan::math::nested_rev_autodiff nested;
  const auto n = static_cast<Eigen::Index>(f.model->dim);
  Eigen::Matrix<stan::math::var, -1, 1> point =
      Eigen::Map<const Eigen::VectorXd>(z, n).cast<stan::math::var>();
  const stan::math::var result = log_density(f.model, f.propto, f.jacobian, point);
  *value = result.val();
  stan::math::grad(result.vi_);
  for (Eigen::Index i = 0; i < n; ++i) derivative[i] = point[i].adj();
}

Eigen::VectorXd vector_of(const double* values, size_t n) {
  return Eigen::Map<const Eigen::VectorXd>(values, static_cast<Eigen::Index>(n));
}

void copy(const Eigen::VectorXd& from, size_t n, double* to) {
  if (static_cast<size_t>(from.size()) != n)
    throw std::length_error("the Stan program gave " + std::to_string(from.size()) +
                            " values instead of " + std::to_string(n));
  std::memcpy(to, from.data(), n * sizeof(double));
}

/* ---- Descriptions ---------------------------------------------------------------------------- */

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    if (!text.empty()) text += ',';
    text += name;
  }
  return text;
}

std::string describe(const stan::model::model_base& model) {
  std::ostringstream text;
  text << "Interface: StanFlow\nStan version: " << stan::MAJOR_VERSION << '.' << stan::MINOR_VERSION << '.'
       << stan::PATCH_VERSION << "\nStan C++ Defines:\n\tSTAN_THREADS=true\nStan Compiler Details:\n";
  for (const std::string& line : model.model_compile_info()) text << '\t' << line << '\n';
  return text.str();
}

std::unique_ptr<bs_model> construct(const char* data, unsigned int seed) {
  auto m = std::make_unique<bs_model>();
  const std::unique_ptr<stan::io::var_context> context = read_context(data);
  m->model.reset(stanflow_new_model(*context, seed, &stanflow::program_output()));
  m->name = m->model->model_name();
  m->info = describe(*m->model);
  m->dim = m->model->num_params_r();
  std::vector<std::string> names;
  m->model->unconstrained_param_names(names, false, false);
  m->unconstrained_names = joined(names);
  for (const bool tp : {false, true})
    for (const bool gq : {false, true}) {
      names.clear();
      m->model->constrained_param_names(names, tp, gq);
      m->names[tp][gq] = joined(names);
      m->n_values[tp][gq] = names.size();
    }
  return m;
}

}  // namespace

namespace stanflow {

thread_local sigjmp_buf* evaluation = nullptr;

void clear_tape() {
  while (!stan::math::empty_nested()) stan::math::recover_memory_nested();
  stan::math::recover_memory();
}

void set_error(char** error_msg, const std::string& message) {
  if (error_msg != nullptr) *error_msg = strdup(message.c_str());
}

std::ostream& program_output() {
  static thread_local message_stream stream;
  return stream;
}

void finish_printing() noexcept { program_output().flush(); }

}  // namespace stanflow

/* ---- The interface --------------------------------------------------------------------------- */

extern "C" {
PUBLIC const int bs_major_version = 2;
PUBLIC const int bs_minor_version = 9;
PUBLIC const int bs_patch_version = 0;
}

/* data: JSON text, a path that ends in .json, or null or empty for none. seed: of the random numbers
 * in the transformed data block. */
PUBLIC bs_model* bs_model_construct(const char* data, unsigned int seed, char** error_msg) {
  handle_arithmetic_signals();
  bs_model* made = nullptr;
  stanflow::succeeds(error_msg, [&] { made = construct(data, seed).release(); });
  return made;
}

PUBLIC void bs_model_destruct(bs_model* m) { delete m; }

PUBLIC void bs_free_error_msg(char* error_msg) { std::free(error_msg); }

PUBLIC const char* bs_name(const bs_model* m) { return m->name.c_str(); }

PUBLIC const char* bs_model_info(const bs_model* m) { return m->info.c_str(); }

PUBLIC const char* bs_param_names(const bs_model* m, bool include_tp, bool include_gq) {
  return m->names[include_tp][include_gq].c_str();
}

PUBLIC const char* bs_param_unc_names(const bs_model* m) { return m->unconstrained_names.c_str(); }

PUBLIC int bs_param_num(const bs_model* m, bool include_tp, bool include_gq) {
  return static_cast<int>(m->n_values[include_tp][include_gq]);
}

PUBLIC int bs_param_unc_num(const bs_model* m) { return static_cast<int>(m->dim); }

/* theta_unc: in, (D). theta: out, (bs_param_num). rng: needed with generated quantities. */
PUBLIC int bs_param_constrain(const bs_model* m, bool include_tp, bool include_gq,
                              const double* theta_unc, double* theta, bs_rng* rng,
                              char** error_msg) {
  return status(error_msg, [&] {
    if (include_gq && rng == nullptr)
      throw std::invalid_argument("generated quantities need a random number generator");
    static thread_local rng_type unused = stan::services::util::create_rng(0, 0);
    Eigen::VectorXd z = vector_of(theta_unc, m->dim), values;
    m->model->write_array(rng == nullptr ? unused : rng->rng, z, values, include_tp, include_gq,
                          &stanflow::program_output());
    copy(values, m->n_values[include_tp][include_gq], theta);
  });
}

/* theta: in, (bs_param_num without tp and gq). theta_unc: out, (D). */
PUBLIC int bs_param_unconstrain(const bs_model* m, const double* theta, double* theta_unc,
                                char** error_msg) {
  return status(error_msg, [&] {
    Eigen::VectorXd z;
    m->model->unconstrain_array(vector_of(theta, m->n_values[false][false]), z,
                                &stanflow::program_output());
    copy(z, m->dim, theta_unc);
  });
}

/* json: every parameter by name, as text or the path of a file. theta_unc: out, (D). */
PUBLIC int bs_param_unconstrain_json(const bs_model* m, const char* json, double* theta_unc,
                                     char** error_msg) {
  return status(error_msg, [&] {
    Eigen::VectorXd z;
    m->model->transform_inits(*read_context(json), z, &stanflow::program_output());
    copy(z, m->dim, theta_unc);
  });
}

/* json: some parameters by name, or null; the others are drawn uniformly from (-radius, radius) on
 * the unconstrained scale, up to max_tries times until the log density is finite. theta_unc: out,
 * (D). */
PUBLIC int bs_param_initialize(const bs_model* m, const char* json, bs_rng* rng, double init_radius,
                               int max_tries, bool jacobian, double* theta_unc, char** error_msg) {
  return status(error_msg, [&] {
    if (rng == nullptr) throw std::invalid_argument("a random number generator is needed");
    const std::unique_ptr<stan::io::var_context> given = read_context(json);
    std::vector<std::string> names;
    m->model->get_param_names(names, false, false);
    const bool any_given = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return given->contains_r(name);
    });
    std::string problem = "no try was allowed";
    for (int i = 0; i < max_tries; ++i) {
      try {
        const stan::io::random_var_context drawn(*m->model, rng->rng, init_radius,
                                                 init_radius == 0);
        Eigen::VectorXd z = vector_of(drawn.get_unconstrained().data(), m->dim);
        if (any_given) {
          const stan::io::chained_var_context context(*given, drawn);
          m->model->transform_inits(context, z, &stanflow::program_output());
        }
        const double value = density_function{m, false, jacobian}(z);
        if (std::isfinite(value)) return copy(z, m->dim, theta_unc);
        problem = "the log density is " + std::to_string(value);
      } catch (const std::domain_error& error) {
        problem = error.what();
      }
    }
    throw std::domain_error("no initial point of finite log density was found in " +
                            std::to_string(max_tries) + " tries: " + problem);
  });
}

/* theta_unc: in, (D). val: out. */
PUBLIC int bs_log_density(const bs_model* m, bool propto, bool jacobian, const double* theta_unc,
                          double* val, char** error_msg) {
  return status(error_msg, [&] {
    *val = density_function{m, propto, jacobian}(vector_of(theta_unc, m->dim));
  });
}

/* theta_unc: in, (D). val: out. grad: out, (D). */
PUBLIC int bs_log_density_gradient(const bs_model* m, bool propto, bool jacobian,
                                   const double* theta_unc, double* val, double* grad,
                                   char** error_msg) {
  return status(error_msg,
                [&] { gradient(density_function{m, propto, jacobian}, theta_unc, val, grad); });
}

/* The Hessian by central differences of the gradient, 2 D of them. theta_unc: in, (D). val: out.
 * grad: out, (D). hessian: out, (D, D). */
PUBLIC int bs_log_density_hessian(const bs_model* m, bool propto, bool jacobian,
                                  const double* theta_unc, double* val, double* grad,
                                  double* hessian, char** error_msg) {
  return status(error_msg, [&] {
    Eigen::VectorXd first;
    Eigen::MatrixXd second;
    stan::math::internal::finite_diff_hessian_auto(density_function{m, propto, jacobian},
                                                   vector_of(theta_unc, m->dim), *val, first,
                                                   second);
    copy(first, m->dim, grad);
    copy(second.reshaped(), m->dim * m->dim, hessian);
  });
}

/* The Hessian times a vector, by a central difference of the gradient along it. theta_unc, vector:
 * in, (D). val: out. hvp: out, (D). */
PUBLIC int bs_log_density_hessian_vector_product(const bs_model* m, bool propto, bool jacobian,
                                                 const double* theta_unc, const double* vector,
                                                 double* val, double* hvp, char** error_msg) {
  return status(error_msg, [&] {
    const density_function f{m, propto, jacobian};
    const Eigen::VectorXd z = vector_of(theta_unc, m->dim), v = vector_of(vector, m->dim);
    Eigen::VectorXd product = Eigen::VectorXd::Zero(z.size());
    if (v.isZero(0))
      *val = f(z);
    else
      stan::math::internal::finite_diff_hessian_times_vector_auto(f, z, v, *val, product);
    copy(product, m->dim, hvp);
  });
}

PUBLIC bs_rng* bs_rng_construct(unsigned int seed, char** error_msg) {
  bs_rng* made = nullptr;
  stanflow::succeeds(error_msg, [&] { made = new bs_rng{stan::services::util::create_rng(seed, 0)}; });
  return made;
}

PUBLIC void bs_rng_destruct(bs_rng* rng) { delete rng; }

/* Where print statements go; null for standard output. Calls of it never overlap. */
PUBLIC int bs_set_print_callback(print_callback callback, char** error_msg) {
  return status(error_msg, [&] {
    const std::lock_guard<std::mutex> guard(print_lock);
    print_to = callback;
  });
}
