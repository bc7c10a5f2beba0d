/*
 * A Stan program conditioned on data, as BridgeStan's C interface and the sampler see it. What is
 * known of the program is its virtual interface, stan::model::model_base, so that all of this is
 * compiled once and linked with every program.
 */
#pragma once

#include <stan/model/model_base.hpp>

#include <csetjmp>
#include <memory>
#include <string>
#include <vector>

struct bs_model {
  std::unique_ptr<stan::model::model_base> model;
  std::string name;
  std::string info;
  size_t dim;                     /* unconstrained parameters, D */
  std::string unconstrained_names;
  std::string names[2][2];        /* by include_tp, include_gq; separated by commas */
  size_t n_values[2][2];
};

namespace stanflow {

/* Where print statements write: to the callback, or to standard output. One a thread. */
std::ostream& program_output();

/* Passes on what a print statement had written when it was interrupted. */
void finish_printing() noexcept;

/* A copy of a message that bs_free_error_msg frees; does nothing where the caller wants none. */
void set_error(char** error_msg, const std::string& message);

/* Frees what an evaluation has left on this thread's tape. */
void clear_tape();

/* Where this thread's evaluation entered; null outside of one. */
extern thread_local sigjmp_buf* evaluation;

/*
 * Runs f, and says whether it came to its end; sets the message where not. No exception leaves, and
 * no signal: an integer division by zero, or of the smallest int by -1, raises SIGFPE, whose handler
 * jumps back here. What the interrupted computation had allocated is then lost. Only in what Stan
 * hands to TBB, reduce_sum and map_rect, the signal goes where it went before.
 */
template <typename F>
bool succeeds(char** error_msg, const F& f) noexcept {
  static thread_local stan::math::ChainableStack tape; /* Stan's, of this thread */
  sigjmp_buf here;
  sigjmp_buf* const outer = evaluation;
  if (sigsetjmp(here, 0) != 0) {
    evaluation = outer;
    clear_tape();
    finish_printing();
    set_error(error_msg, "integer division whose result is no int");
    return false;
  }
  evaluation = &here;
  bool done = false;
  try {
    f();
    done = true;
  } catch (const std::exception& error) {
    set_error(error_msg, error.what());
  } catch (...) {
    set_error(error_msg, "the Stan program failed for a reason that it does not tell");
  }
  evaluation = outer;
  finish_printing();
  return done;
}

}  // namespace stanflow
